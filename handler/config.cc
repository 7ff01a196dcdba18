#include "handler/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace keys {
namespace {

constexpr std::array kSettings = {
    Setting{"KEYS_DATABASE_URL", "", "PostgreSQL connection string (URL or key=value); required"},
    Setting{"KEYS_JWKS_FILE", "", "JWK set that verifies tokens; this or the secret is required"},
    Setting{"KEYS_JWT_SECRET_FILE", "", "file with the legacy HS256 secret, 32 bytes or more"},
    Setting{"KEYS_JWT_ISSUER", "",
            "the `iss` values that a token may carry, separated by commas or spaces; unset: any"},
    Setting{"KEYS_JWT_AUDIENCE", "authenticated", "the `aud` a token must carry"},
    Setting{"KEYS_COOKIE_NAME", "sb-access-token", "the cookie that holds the token"},
    Setting{"KEYS_SUPABASE_COOKIE", "",
            "sb-<ref>-auth-token: understand the cookie of @supabase/ssr too"},
    Setting{"KEYS_CLOCK_LEEWAY_SECONDS", "0", "tolerance for `exp` and `nbf`, 0 to 60"},
    Setting{"KEYS_CHECK_SESSION", "on",
            "off: ask neither auth.sessions nor auth.users (issuers that have none)"},
    Setting{
        "KEYS_DEADLINE_MS", "2000",
        "longest wait for the database, 100 to 60000; below nginx's fastcgi_read_timeout (5 s)"},
    Setting{"KEYS_SERVER_TIMING", "off",
            "on: send Server-Timing with every answer for which the database was asked"},
    Setting{"KEYS_METRICS_FILE", "",
            "counters that a pool's processes share, in PATH-<layout>; unset: each counts alone"},
};

// RFC 6265 section 4.1.1: a cookie's name is a token (RFC 2616 section 2.2).
bool IsCookieName(std::string_view text) {
  for (const char c : text) {
    if (c <= ' ' || c >= 0x7F ||
        std::string_view("()<>@,;:\\\"/[]?={}").find(c) != std::string_view::npos) {
      return false;
    }
  }
  return !text.empty() && text.size() <= 128;
}

class Reader {
 public:
  Reader(const std::function<const char*(const char*)>& get, std::vector<std::string>& problems)
      : get_(get), problems_(problems) {}

  std::string Text(std::string_view name) {
    const char* const value = get_(std::string(name).c_str());
    if (value != nullptr && *value != '\0') return value;
    for (const Setting& setting : kSettings) {
      if (setting.name == name) return std::string(setting.default_value);
    }
    return {};
  }

  // Its elements, separated by commas or white space.
  std::vector<std::string> List(std::string_view name) {
    const std::string text = Text(name);
    std::vector<std::string> elements;
    constexpr std::string_view kSeparators = ", \t\n";
    for (size_t at = 0; (at = text.find_first_not_of(kSeparators, at)) != std::string::npos;) {
      const size_t end = std::min(text.find_first_of(kSeparators, at), text.size());
      elements.push_back(text.substr(at, end - at));
      at = end;
    }
    if (elements.empty() && !text.empty()) Complain(name, "names nothing");
    return elements;
  }

  std::string CookieName(std::string_view name) {
    std::string text = Text(name);
    if (!text.empty() && !IsCookieName(text)) {
      Complain(name, "is no cookie name (RFC 6265 section 4.1.1)");
    }
    return text;
  }

  bool OnOff(std::string_view name) {
    const std::string text = Text(name);
    if (text != "on" && text != "off") Complain(name, "must be on or off, not '" + text + "'");
    return text == "on";
  }

  int Integer(std::string_view name, int least, int most) {
    const std::string text = Text(name);
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
      Complain(name, "must be a whole number from " + std::to_string(least) + " to " +
                         std::to_string(most) + ", not '" + text + "'");
    }
    return value;
  }

  void Complain(std::string_view name, std::string_view what) {
    problems_.push_back(std::string(name) + " " + std::string(what));
  }

 private:
  const std::function<const char*(const char*)>& get_;
  std::vector<std::string>& problems_;
};

}  // namespace

std::span<const Setting> Settings() {
  return kSettings;
}

LoadedConfig LoadConfig(const std::function<const char*(const char*)>& get) {
  LoadedConfig loaded;
  Config& config = loaded.config;
  Reader reader(get, loaded.problems);

  config.database_url = reader.Text("KEYS_DATABASE_URL");
  if (config.database_url.empty()) reader.Complain("KEYS_DATABASE_URL", "is not set");
  config.jwks_file = reader.Text("KEYS_JWKS_FILE");
  config.secret_file = reader.Text("KEYS_JWT_SECRET_FILE");
  if (config.jwks_file.empty() && config.secret_file.empty()) {
    loaded.problems.emplace_back("KEYS_JWKS_FILE and KEYS_JWT_SECRET_FILE are both not set");
  }
  config.token.issuers = reader.List("KEYS_JWT_ISSUER");
  config.token.audience = reader.Text("KEYS_JWT_AUDIENCE");
  config.cookies.token = reader.CookieName("KEYS_COOKIE_NAME");
  config.cookies.supabase = reader.CookieName("KEYS_SUPABASE_COOKIE");
  config.token.leeway = std::chrono::seconds(reader.Integer("KEYS_CLOCK_LEEWAY_SECONDS", 0, 60));
  config.token.require_session = reader.OnOff("KEYS_CHECK_SESSION");
  config.deadline = std::chrono::milliseconds(reader.Integer("KEYS_DEADLINE_MS", 100, 60000));
  config.server_timing = reader.OnOff("KEYS_SERVER_TIMING");
  config.metrics_file = reader.Text("KEYS_METRICS_FILE");
  return loaded;
}

}  // namespace keys
