#include "handler/database/conninfo.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "handler/base/log.h"

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

bool IsHost(const std::string& host) {
  return host.starts_with('/') || host.find('@', 1) == std::string::npos;
}

bool IsPort(const std::string& port) {
  return std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// What the server says unasked, why it ends a connection above all. libpq would print it raw.
void LogNotice(void*, const PGresult* notice) {
  const char* const state = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
  Log(Level::kWarning, "database_notice",
      {{"sqlstate", state == nullptr ? "" : state},
       {"text", OneLine(PQresultErrorMessage(notice))}});
}

}  // namespace

std::string OneLine(const char* message) {
  std::string line = message == nullptr ? "" : message;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

// "… failed: FATAL:  28P01: password authentication failed …"
std::string_view SqlStateIn(std::string_view message) {
  constexpr std::string_view kMark = ":  ";
  constexpr size_t kLength = 5;
  for (size_t at = message.find(kMark); at != std::string_view::npos;
       at = message.find(kMark, at + 1)) {
    const std::string_view state = message.substr(at + kMark.size(), kLength);
    const auto is_part = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); };
    if (state.size() == kLength && std::all_of(state.begin(), state.end(), is_part) &&
        message.substr(at + kMark.size() + kLength).starts_with(": ")) {
      return state;
    }
  }
  return {};
}

Conninfo::Conninfo(const std::string& url) {
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> parsed(
      PQconninfoParse(url.c_str(), nullptr), &PQconninfoFree);
  // libpq's reason would quote the part that it stumbled over, often one of the password's.
  if (!parsed) Refuse("not a connection string that libpq understands");
  std::array<std::vector<std::string>, 3> lists;
  for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr) continue;
    const std::string_view keyword = option->keyword;
    const std::string_view names[] = {"host", "hostaddr", "port"};
    const auto* const name = std::find(std::begin(names), std::end(names), keyword);
    if (name != std::end(names)) {
      lists[static_cast<size_t>(name - names)] = SplitList(option->val);
    } else {
      options_.emplace_back(keyword, option->val);
    }
  }
  // What libpq takes for these when the password has a / or an @ in it, and would quote.
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
  PQsetNoticeReceiver(connection, &LogNotice, nullptr);
  PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
  return connection;
}

}  // namespace keys
