#include "handler/config.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

namespace keys {
namespace {

using Environment = std::map<std::string, std::string>;

LoadedConfig Load(const Environment& environment) {
  return LoadConfig([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

const Environment kLeast = {{"KEYS_DATABASE_URL", "postgresql:///keys"},
                            {"KEYS_JWT_SECRET_FILE", "/secret"}};

TEST_CASE("the least that is needed, and every default") {
  const LoadedConfig loaded = Load(kLeast);
  CHECK(loaded.problems.empty());
  CHECK(loaded.config.database_url == "postgresql:///keys");
  CHECK(loaded.config.secret_file == "/secret");
  CHECK(loaded.config.cookies.token == "sb-access-token");
  CHECK(loaded.config.cookies.supabase.empty());
  CHECK(loaded.config.token.audience == "authenticated");
  CHECK(loaded.config.token.issuers.empty());
  CHECK(loaded.config.token.leeway.count() == 0);
  CHECK(loaded.config.token.require_session);
  CHECK(loaded.config.deadline.count() == 2000);
  CHECK_FALSE(loaded.config.server_timing);
}

TEST_CASE("each setting, accepted and refused") {
  struct Row {
    const char* name;
    const char* value;
    bool good;
  };
  const Row rows[] = {
      {"KEYS_DEADLINE_MS", "100", true},
      {"KEYS_DEADLINE_MS", "60000", true},
      {"KEYS_DEADLINE_MS", "99", false},
      {"KEYS_DEADLINE_MS", "60001", false},
      {"KEYS_DEADLINE_MS", "2000ms", false},
      {"KEYS_DEADLINE_MS", " 2000", false},
      {"KEYS_DEADLINE_MS", "99999999999999999999", false},
      {"KEYS_CLOCK_LEEWAY_SECONDS", "60", true},
      {"KEYS_CLOCK_LEEWAY_SECONDS", "-1", false},
      {"KEYS_CLOCK_LEEWAY_SECONDS", "61", false},
      {"KEYS_CHECK_SESSION", "off", true},
      {"KEYS_CHECK_SESSION", "no", false},
      {"KEYS_SERVER_TIMING", "on", true},
      {"KEYS_SERVER_TIMING", "ON", false},
      {"KEYS_COOKIE_NAME", "session", true},
      {"KEYS_COOKIE_NAME", "two words", false},
      {"KEYS_COOKIE_NAME", "a=b", false},
      {"KEYS_COOKIE_NAME", "quoted\"", false},
      {"KEYS_SUPABASE_COOKIE", "sb-abcdefgh-auth-token", true},
      {"KEYS_SUPABASE_COOKIE", "sb;x", false},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    CAPTURE(row.value);
    Environment environment = kLeast;
    environment[row.name] = row.value;
    const LoadedConfig loaded = Load(environment);
    CHECK(loaded.problems.empty() == row.good);
    if (!row.good) CHECK(loaded.problems.front().find(row.name) == 0);
  }
}

TEST_CASE("issuers are a list, separated by commas or spaces") {
  const auto issuers = [](const char* value) {
    Environment environment = kLeast;
    environment["KEYS_JWT_ISSUER"] = value;
    return Load(environment).config.token.issuers;
  };
  using List = std::vector<std::string>;
  CHECK(issuers("https://a/v1") == List{"https://a/v1"});
  CHECK(issuers("https://a/v1,https://b/v1") == List{"https://a/v1", "https://b/v1"});
  CHECK(issuers(" https://a/v1  https://b/v1,") == List{"https://a/v1", "https://b/v1"});
  CHECK(issuers("").empty());

  Environment environment = kLeast;
  environment["KEYS_JWT_ISSUER"] = " , ";
  CHECK(Load(environment).problems.size() == 1);
}

TEST_CASE("every problem is listed at once") {
  const LoadedConfig loaded = Load({{"KEYS_DEADLINE_MS", "x"}, {"KEYS_CHECK_SESSION", "x"}});
  CHECK(loaded.problems.size() == 4);  // these two, no database, no keys
}

TEST_CASE("a variable that is set to nothing is not set") {
  Environment environment = kLeast;
  environment["KEYS_DEADLINE_MS"] = "";
  CHECK(Load(environment).config.deadline.count() == 2000);
}

}  // namespace
}  // namespace keys
