#include "handler/database/pg_result.h"

#include <libpq-fe.h>

#include <algorithm>

namespace keys {

Row::Row(const PGresult* result, int row) : result_(result), row_(row) {}

int Row::columns() const {
  return PQnfields(result_);
}

std::string_view Row::Bytes(int column) const {
  return {PQgetvalue(result_, row_, column),
          static_cast<size_t>(PQgetlength(result_, row_, column))};
}

void Result::Clear::operator()(PGresult* result) const {
  PQclear(result);
}

bool Result::is_good() const {
  const ExecStatusType status = PQresultStatus(result_.get());
  return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

int Result::rows() const {
  return PQntuples(result_.get());
}

size_t Result::memory() const {
  return PQresultMemorySize(result_.get());
}

std::string Result::sqlstate() const {
  const char* const state = PQresultErrorField(result_.get(), PG_DIAG_SQLSTATE);
  return state == nullptr ? "" : state;
}

std::string Result::Message() const {
  return OneLine(PQresultErrorMessage(result_.get()));
}

std::string OneLine(const char* message) {
  std::string_view rest = message == nullptr ? "" : message;
  std::string line;
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    // "LOCATION:  auth_failed, auth.c:330" (PQERRORS_VERBOSE): a line of PostgreSQL's source.
    if (one.empty() || one.starts_with("LOCATION:")) continue;
    if (!line.empty()) line += ' ';
    line += one;
  }
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

}  // namespace keys
