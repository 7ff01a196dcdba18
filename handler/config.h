// The settings: environment -> one immutable struct, read once at start.
//
// LoadConfig finds and lists every problem in one pass. kSettings is the one list of names,
// defaults and meanings: --help prints it, the man page takes it from there, and a test compares
// tools/keys-fcgi.env with it.
#ifndef HANDLER_CONFIG_H_
#define HANDLER_CONFIG_H_

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "handler/auth/jwt.h"
#include "handler/auth/session_cookie.h"

namespace keys {

// The fastcgi_read_timeout of nginx/keys-api.conf: a longer deadline needs a longer one.
constexpr std::chrono::milliseconds kNginxReadTimeout{5000};

struct Config {
  std::string database_url;
  std::string jwks_file;    // empty: none
  std::string secret_file;  // empty: none
  SessionCookieNames cookies;
  TokenPolicy token;  // its require_session is KEYS_CHECK_SESSION
  std::chrono::milliseconds deadline{2000};
  bool server_timing = false;
  std::string metrics_file;  // empty: this process counts for itself
};

struct Setting {
  std::string_view name;
  std::string_view default_value;
  std::string_view meaning;
};
std::span<const Setting> Settings();

struct LoadedConfig {
  Config config;
  std::vector<std::string> problems;  // empty: config is good
};

// `get` answers a variable's value, or nullptr: std::getenv in the program, a map in a test.
// A variable that is set to nothing counts as not set.
LoadedConfig LoadConfig(const std::function<const char*(const char*)>& get);

}  // namespace keys

#endif  // HANDLER_CONFIG_H_
