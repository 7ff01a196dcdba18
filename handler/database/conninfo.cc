#include "handler/database/conninfo.h"

#include <libpq-fe.h>

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace keys {
namespace {

std::vector<std::string> SplitList(std::string_view list) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= list.size();) {
    const size_t comma = std::min(list.find(',', start), list.size());
    parts.emplace_back(list.substr(start, comma - start));
    start = comma + 1;
  }
  return parts;
}

[[noreturn]] void Refuse(const std::string& reason) {
  throw std::runtime_error("KEYS_DATABASE_URL: " + reason +
                           "; are special characters of the password percent-encoded?");
}

// libpq's reason quotes the part that it could not parse, which is often a part of the password.
// Only the name of a query parameter behind the last `@` cannot be.
[[noreturn]] void RefuseUnparsed(std::string_view url, std::string_view reason) {
  constexpr std::string_view kParameter = "invalid URI query parameter: \"";
  if (reason.starts_with(kParameter)) {
    reason.remove_prefix(kParameter.size());
    const std::string name(reason.substr(0, reason.find('"')));
    const size_t at = url.rfind('@');
    if (url.find(name, at == std::string_view::npos ? 0 : at) != std::string_view::npos) {
      throw std::runtime_error("KEYS_DATABASE_URL: PostgreSQL has no parameter '" + name +
                               "'; delete it");
    }
  }
  Refuse("not a connection string that libpq understands");
}

bool IsHost(const std::string& host) {
  return host.starts_with('/') || host.find('@', 1) == std::string::npos;
}

bool IsPort(const std::string& port) {
  return std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Parameters whose values in the URL are ignored: client_encoding is always UTF8, and the batcher
// asks each server whether it is writable.
bool IsOurs(std::string_view keyword) {
  return keyword == "client_encoding" || keyword == "target_session_attrs";
}

// Used unless the URL sets them. An idle connection that the network has dropped is noticed within
// 35 s, before a request pays for it, and bytes sent to a vanished host do not wait for minutes.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kKeepalives = {{
    {"keepalives_idle", "20"},
    {"keepalives_interval", "5"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "5000"},  // milliseconds
}};

}  // namespace

Conninfo::Conninfo(const std::string& url) {
  char* reason = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> parsed(
      PQconninfoParse(url.c_str(), &reason), &PQconninfoFree);
  const std::unique_ptr<char, decltype(&PQfreemem)> owned_reason(reason, &PQfreemem);
  if (!parsed) RefuseUnparsed(url, reason == nullptr ? "" : reason);
  std::array<std::vector<std::string>, 3> lists;
  for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr) continue;
    const std::string_view keyword = option->keyword;
    const std::string_view names[] = {"host", "hostaddr", "port"};
    const auto* const name = std::find(std::begin(names), std::end(names), keyword);
    if (name != std::end(names)) {
      lists[static_cast<size_t>(name - names)] = SplitList(option->val);
    } else if (!IsOurs(keyword)) {
      options_.emplace_back(keyword, option->val);
    }
  }
  for (const auto& added : kKeepalives) {
    const std::string_view keyword = added.first;
    const bool is_set = std::any_of(options_.begin(), options_.end(),
                                    [&](const auto& option) { return option.first == keyword; });
    if (!is_set) options_.emplace_back(added);
  }
  options_.emplace_back("client_encoding", "UTF8");
  // A part of a password with a / or an @ ends up here, and libpq's messages would quote it.
  if (!std::all_of(lists[0].begin(), lists[0].end(), IsHost)) Refuse("a host has an @ in it");
  if (!std::all_of(lists[2].begin(), lists[2].end(), IsPort)) Refuse("a port is not a number");
  hosts_.resize(std::max({lists[0].size(), lists[1].size(), size_t{1}}));
  for (size_t i = 0; i < hosts_.size(); ++i) {
    for (size_t part = 0; part < 3; ++part) {
      const std::vector<std::string>& list = lists[part];
      if (!list.empty()) hosts_[i][part] = list.size() == 1 ? list[0] : list[i % list.size()];
    }
  }
}

PGconn* Conninfo::StartConnect(size_t host) const {
  std::vector<const char*> names;
  std::vector<const char*> values;
  const auto add = [&](const char* name, const std::string& value) {
    if (value.empty()) return;
    names.push_back(name);
    values.push_back(value.c_str());
  };
  for (const auto& [name, value] : options_) add(name.c_str(), value);
  add("host", hosts_[host][0]);
  add("hostaddr", hosts_[host][1]);
  add("port", hosts_[host][2]);
  const std::string name = "keys-fcgi";
  add("fallback_application_name", name);
  names.push_back(nullptr);
  values.push_back(nullptr);
  PGconn* const connection = PQconnectStartParams(names.data(), values.data(), 0);
  PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
  return connection;
}

}  // namespace keys
