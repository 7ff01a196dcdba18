#include "handler/database_targets.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "handler/log.h"

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

// What the server says unasked, why it ends a connection above all. libpq would print it raw.
void LogNotice(void*, const PGresult* notice) {
  const char* const state = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
  Log(Level::kWarning, "database_says",
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

DatabaseTargets::DatabaseTargets(const std::string& url) {
  char* error = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> parsed(
      PQconninfoParse(url.c_str(), &error), &PQconninfoFree);
  const std::string message = OneLine(error);
  PQfreemem(error);
  if (!parsed) throw std::runtime_error("KEYS_DATABASE_URL: " + message);
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
  hosts_.resize(std::max({lists[0].size(), lists[1].size(), size_t{1}}));
  for (size_t i = 0; i < hosts_.size(); ++i) {
    for (size_t part = 0; part < 3; ++part) {
      const std::vector<std::string>& list = lists[part];
      if (!list.empty()) hosts_[i][part] = list.size() == 1 ? list[0] : list[i % list.size()];
    }
  }
}

PGconn* DatabaseTargets::StartConnecting(size_t host) const {
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

std::string CheckDatabase(const std::string& url, const std::string& sql) {
  const char* const names[] = {"dbname", "connect_timeout", nullptr};
  const char* const values[] = {url.c_str(), "3", nullptr};
  const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(PQconnectdbParams(names, values, 1),
                                                                &PQfinish);
  if (PQstatus(connection.get()) != CONNECTION_OK) return OneLine(PQerrorMessage(connection.get()));
  const std::unique_ptr<PGresult, decltype(&PQclear)> result(
      PQprepare(connection.get(), "", sql.c_str(), 0, nullptr), &PQclear);
  if (PQresultStatus(result.get()) == PGRES_COMMAND_OK) return {};
  return OneLine(PQresultErrorMessage(result.get()));
}

}  // namespace keys
