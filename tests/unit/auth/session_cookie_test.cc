#include "handler/auth/session_cookie.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

const SessionCookieNames kNames{"sb-access-token", "sb-ref-auth-token"};

// The token, or the refusal's name in brackets.
std::string Find(std::string_view header, const SessionCookieNames& names = kNames) {
  std::string scratch = "left over from the request before";
  const auto found = FindSessionToken(header, names, scratch);
  if (const auto* const refusal = std::get_if<TokenRefusal>(&found)) {
    return "[" + std::string(Describe(*refusal)) + "]";
  }
  return std::string(std::get<std::string_view>(found));
}

std::string Encoded(std::string_view json) {
  return "base64-" + test::EncodeBase64url(json);
}

// The cookies of @supabase/ssr, cut into chunks of `size`.
std::vector<std::string> Chunks(const std::string& value, size_t size) {
  std::vector<std::string> cookies;
  for (size_t at = 0; at < value.size(); at += size) {
    cookies.push_back("sb-ref-auth-token." + std::to_string(cookies.size()) + "=" +
                      value.substr(at, size));
  }
  return cookies;
}

std::string Joined(const std::vector<std::string>& cookies) {
  std::string header;
  for (const std::string& cookie : cookies) header += cookie + "; ";
  return header;
}

constexpr std::string_view kSession =
    R"({"access_token":"aaa.bbb.ccc","token_type":"bearer","expires_in":3600,)"
    R"("refresh_token":"r","user":{"id":"u","access_token":"not.this.one","n":[1,{"x":null}]}})";

TEST_CASE("sb-access-token comes first, whatever stands beside it") {
  const std::string whole = "sb-ref-auth-token=" + Encoded(kSession);
  CHECK(Find("sb-access-token=x.y.z") == "x.y.z");
  CHECK(Find(whole + "; sb-access-token=x.y.z") == "x.y.z");
  CHECK(Find("sb-ref-auth-token=broken; sb-access-token=x.y.z") == "x.y.z");
  CHECK(Find(whole + "; sb-access-token=") == "");
  CHECK(Find("") == "[no_cookie]");
  CHECK(Find("a=b") == "[no_cookie]");
}

TEST_CASE("the supabase cookie is understood only where it is configured") {
  const std::string whole = "sb-ref-auth-token=" + Encoded(kSession);
  CHECK(Find(whole) == "aaa.bbb.ccc");
  CHECK(Find(whole, {"sb-access-token", ""}) == "[no_cookie]");
  CHECK(Find(whole, {"sb-access-token", "sb-other-auth-token"}) == "[no_cookie]");
}

TEST_CASE("chunks of any size and order give the token") {
  const std::string value = Encoded(kSession);
  for (const size_t size : {value.size(), value.size() / 2 + 1, size_t{32}}) {
    CAPTURE(size);
    std::vector<std::string> cookies = Chunks(value, size);
    CHECK(Find(Joined(cookies)) == "aaa.bbb.ccc");
    std::swap(cookies.front(), cookies.back());
    CHECK(Find("a=1; " + Joined(cookies)) == "aaa.bbb.ccc");
  }
}

TEST_CASE("broken and missing chunks are a refusal, never a guess") {
  const std::string value = Encoded(kSession);
  const std::vector<std::string> three = Chunks(value, value.size() / 3 + 1);
  REQUIRE(three.size() == 3);
  CHECK(Find(Joined(three)) == "aaa.bbb.ccc");
  CHECK(Find(Joined({three[1], three[2]})) == "[cookie_chunks]");
  CHECK(Find(Joined({three[0], three[2]})) == "[cookie_chunks]");
  CHECK(Find(three[1]) == "[cookie_chunks]");
  CHECK(Find(Joined({three[0], three[1], three[2], "sb-ref-auth-token.4=x"})) == "[cookie_chunks]");
  // The last one is missing: what is there is no whole text.
  CHECK(Find(Joined({three[0], three[1]})) != "aaa.bbb.ccc");
  CHECK(Find(Joined({three[0], three[1]})).starts_with("[cookie_"));
  // One is from somewhere else.
  CHECK(Find(Joined({three[0], "sb-ref-auth-token.1=!", three[2]})) == "[cookie_encoding]");
  CHECK(Find(Joined({three[0], "sb-ref-auth-token.1=", three[2]})).starts_with("[cookie_"));
  // Of two chunks of one number the first counts.
  CHECK(Find(Joined({three[0], three[1], "sb-ref-auth-token.1=!", three[2]})) == "aaa.bbb.ccc");
  // The whole form comes before chunks.
  CHECK(Find("sb-ref-auth-token=" + value + "; sb-ref-auth-token.0=!") == "aaa.bbb.ccc");
  CHECK(Find("sb-ref-auth-token=!; " + Joined(three)) == "[cookie_encoding]");
}

TEST_CASE("names that only resemble a chunk are neighbours") {
  const std::string whole = "sb-ref-auth-token.0=" + Encoded(kSession);
  for (const std::string name :
       {"sb-ref-auth-token.", "sb-ref-auth-token.00", "sb-ref-auth-token.01",
        "sb-ref-auth-token.1x", "sb-ref-auth-token.-1", "sb-ref-auth-token.+1",
        "sb-ref-auth-token-code-verifier", "sb-ref-auth-tokens.1", "SB-REF-AUTH-TOKEN.1"}) {
    CAPTURE(name);
    CHECK(Find(name + "=x; " + whole) == "aaa.bbb.ccc");
    CHECK(Find(name + "=x") == "[no_cookie]");
  }
}

TEST_CASE("chunks are bounded in number and length") {
  const std::string value = Encoded(kSession);
  const auto with_last = [&](const std::string& number) {
    return "sb-ref-auth-token.0=" + value + "; sb-ref-auth-token." + number + "=x";
  };
  CHECK(Find(with_last("16")) == "[cookie_chunks]");
  CHECK(Find(with_last("99999999999999999999999")) == "[cookie_chunks]");
  CHECK(Find(with_last("18446744073709551617")) == "[cookie_chunks]");

  const auto of_length = [](size_t length) {
    std::string json = R"({"access_token":"t","pad":")";
    const size_t bytes = (length - 7) / 4 * 3;
    json += std::string(bytes - json.size() - 2, 'p') + "\"}";
    return "sb-ref-auth-token=" + Encoded(json);
  };
  CHECK(Find(of_length(kMaxSessionCookieLength - 1)) == "t");
  CHECK(Find(of_length(kMaxSessionCookieLength + 8)) == "[cookie_encoding]");
}

TEST_CASE("the session is strict base64url of one JSON object with one access_token") {
  struct Row {
    std::string_view flaw;
    std::string value;
    std::string found;
  };
  const std::string good = R"({"access_token":"a.b.c"})";
  const Row rows[] = {
      {"none", Encoded(good), "a.b.c"},
      {"none: an escape in the token", Encoded(R"({"access_token":"\u0061.b.c"})"), "a.b.c"},
      {"empty", "", "[cookie_encoding]"},
      {"prefix alone", "base64-", "[cookie_session]"},
      {"no prefix", test::EncodeBase64url(good), "[cookie_encoding]"},
      {"prefix in capitals", "BASE64-" + test::EncodeBase64url(good), "[cookie_encoding]"},
      {"prefix of another encoding", "base64url-" + test::EncodeBase64url(good),
       "[cookie_encoding]"},
      {"padding", Encoded(good + " ") + "=", "[cookie_encoding]"},
      {"quoted", "\"" + Encoded(good) + "\"", "[cookie_encoding]"},
      {"raw JSON", good, "[cookie_encoding]"},
      {"a token instead", "base64-a.b.c", "[cookie_encoding]"},
      {"not JSON", Encoded("access_token"), "[cookie_session]"},
      {"cut JSON", Encoded(good.substr(0, good.size() - 1)), "[cookie_session]"},
      {"more after it", Encoded(good + "{}"), "[cookie_session]"},
      {"the array of old helpers", Encoded(R"(["a.b.c","r"])"), "[cookie_session]"},
      {"no access_token", Encoded(R"({"refresh_token":"r"})"), "[cookie_session]"},
      {"one of another case", Encoded(R"({"Access_Token":"a.b.c"})"), "[cookie_session]"},
      {"one further down", Encoded(R"({"user":{"access_token":"a.b.c"}})"), "[cookie_session]"},
      {"null", Encoded(R"({"access_token":null})"), "[cookie_session]"},
      {"a number", Encoded(R"({"access_token":5})"), "[cookie_session]"},
      {"an array", Encoded(R"({"access_token":["a.b.c"]})"), "[cookie_session]"},
      {"two of them", Encoded(R"({"access_token":"a.b.c","access_token":"d.e.f"})"),
       "[cookie_session]"},
      {"two, one spelled with an escape",
       Encoded(R"({"access_token":"a.b.c","\u0061ccess_token":"d.e.f"})"), "[cookie_session]"},
      {"invalid UTF-8", Encoded("{\"access_token\":\"a.b.c\",\"x\":\"\xff\"}"), "[cookie_session]"},
      {"a NUL behind", Encoded(good + std::string("\0x", 2)), "[cookie_session]"},
      {"nested deeply",
       Encoded(R"({"access_token":"a.b.c","x":)" + std::string(5000, '[') + std::string(5000, ']') +
               "}"),
       "[cookie_session]"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    CHECK(Find("sb-ref-auth-token=" + row.value) == row.found);
  }
}

}  // namespace
}  // namespace keys
