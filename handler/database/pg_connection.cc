#include "handler/database/pg_connection.h"

#include <libpq-fe.h>
#include <sys/epoll.h>

namespace keys {
namespace {

std::string StatementName(int number) {
  return "list_keys_" + std::to_string(number);
}

void AppendInt32(std::string& bytes, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
}

// A uuid[] in binary format: dimensions, has-null flag, element type, length, lower bound, and each
// element behind its size.
void WriteUuids(const std::vector<Lookup>& lookups, Uuid Lookup::*which, std::string& bytes) {
  constexpr uint32_t kUuidType = 2950;  // pg_type.oid
  bytes.clear();
  const auto length = static_cast<uint32_t>(lookups.size());
  for (const uint32_t word : {1u, 0u, kUuidType, length, 1u}) AppendInt32(bytes, word);
  for (const Lookup& lookup : lookups) {
    const auto& uuid = (lookup.*which).bytes;
    AppendInt32(bytes, static_cast<uint32_t>(uuid.size()));
    bytes.append(reinterpret_cast<const char*>(uuid.data()), uuid.size());
  }
}

}  // namespace

Row::Row(const PGresult* result, int row) : result_(result), row_(row) {}

int Row::columns() const {
  return PQnfields(result_);
}

std::string_view Row::Bytes(int column) const {
  return {PQgetvalue(result_, row_, column),
          static_cast<size_t>(PQgetlength(result_, row_, column))};
}

size_t Row::length() const {
  size_t length = 0;
  for (int column = 0; column < columns(); ++column) length += Bytes(column).size();
  return length;
}

void Answer::Clear::operator()(PGresult* result) const {
  PQclear(result);
}

bool Answer::is_good() const {
  const ExecStatusType status = PQresultStatus(result_.get());
  return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

int Answer::rows() const {
  return PQntuples(result_.get());
}

size_t Answer::memory() const {
  return PQresultMemorySize(result_.get());
}

std::string Answer::sqlstate() const {
  const char* const state = PQresultErrorField(result_.get(), PG_DIAG_SQLSTATE);
  return state == nullptr ? "" : state;
}

std::string Answer::Message() const {
  return OneLine(PQresultErrorMessage(result_.get()));
}

PgConnection::PgConnection(const Conninfo& conninfo, size_t host, int epoll, uint64_t tag)
    : epoll_(epoll), tag_(tag), connection_(conninfo.StartConnect(host)) {}

PgConnection::~PgConnection() = default;

void PgConnection::Close::operator()(PGconn* connection) const {
  PQfinish(connection);
}

PgConnection::Connecting PgConnection::Continue() {
  PGconn* const connection = connection_.get();
  if (PQstatus(connection) == CONNECTION_BAD) return Connecting::kFailed;
  const bool is_new = watched_ < 0;
  // PQconnectStart says: as if it had returned PGRES_POLLING_WRITING.
  const auto wants = is_new ? PGRES_POLLING_WRITING : PQconnectPoll(connection);
  if (wants == PGRES_POLLING_READING || wants == PGRES_POLLING_WRITING) {
    watched_ = -1;  // it may be another socket under the same number
    Watch(wants == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT);
    return watched_ < 0 ? Connecting::kFailed : Connecting::kUnderWay;
  }
  if (wants != PGRES_POLLING_OK || PQsetnonblocking(connection, 1) != 0 ||
      PQenterPipelineMode(connection) != 1) {
    return Connecting::kFailed;
  }
  PQsetErrorVerbosity(connection, PQERRORS_DEFAULT);
  return Connecting::kDone;
}

bool PgConnection::SetTimeouts(std::chrono::milliseconds statement, std::chrono::milliseconds lock,
                               std::chrono::milliseconds lock_alone) {
  lock_alone_ = std::to_string(lock_alone.count());
  const std::string texts[] = {std::to_string(statement.count()), std::to_string(lock.count())};
  const char* const values[] = {texts[0].c_str(), texts[1].c_str()};
  return Sync(PQsendQueryParams(connection_.get(),
                                "SELECT set_config('statement_timeout', $1, false),"
                                " set_config('lock_timeout', $2, false)",
                                2, nullptr, values, nullptr, nullptr, 1));
}

bool PgConnection::Prepare(int statement, const std::string& sql) {
  return Sync(
      PQsendPrepare(connection_.get(), StatementName(statement).c_str(), sql.c_str(), 0, nullptr));
}

bool PgConnection::Ask(int statement, const std::vector<Lookup>& lookups) {
  if (lookups.front().alone) {  // no Sync between them: for this transaction
    const char* const value[] = {lock_alone_.c_str()};
    if (PQsendQueryParams(connection_.get(), "SELECT set_config('lock_timeout', $1, true)", 1,
                          nullptr, value, nullptr, nullptr, 1) != 1) {
      return false;
    }
  }
  WriteUuids(lookups, &Lookup::user, users_);
  WriteUuids(lookups, &Lookup::session, sessions_);
  const char* const values[] = {users_.data(), sessions_.data()};
  const int lengths[] = {static_cast<int>(users_.size()), static_cast<int>(sessions_.size())};
  const int formats[] = {1, 1};
  return Sync(PQsendQueryPrepared(connection_.get(), StatementName(statement).c_str(), 2, values,
                                  lengths, formats, 1));
}

bool PgConnection::Sync(int sent) {
  if (sent != 1 || PQpipelineSync(connection_.get()) != 1) return false;
  ++unanswered_;
  return Flush();
}

bool PgConnection::Flush() {
  const int left = PQflush(connection_.get());
  if (left >= 0) Watch(left == 1 ? EPOLLIN | EPOLLOUT : EPOLLIN);
  return left >= 0;
}

bool PgConnection::Receive() {
  return PQconsumeInput(connection_.get()) == 1 && Flush();
}

PgConnection::Next PgConnection::TakeAnswer(Answer& answer) {
  PGconn* const connection = connection_.get();
  int nothing = 0;
  while (nothing < 2) {
    if (PQstatus(connection) == CONNECTION_BAD && unanswered_ == 0) return Next::kNothing;
    if (PQisBusy(connection) == 1) return Next::kNothing;
    PGresult* const result = PQgetResult(connection);
    if (result == nullptr) {  // ends each statement's results; twice in a row: there are no more
      ++nothing;
      continue;
    }
    nothing = 0;
    Answer got(result);
    const ExecStatusType status = PQresultStatus(result);
    const bool is_end = status == PGRES_FATAL_ERROR && PQstatus(connection) == CONNECTION_BAD;
    if (unanswered_ == 0 || is_end) {  // nobody asked: the server tells us that it is going away
      // The server's own FATAL came first, with its SQLSTATE; libpq adds what it makes of the end.
      answer = std::move(coming_ && !coming_.is_good() ? coming_ : got);
      return Next::kEnd;
    }
    if (status == PGRES_PIPELINE_SYNC) {
      --unanswered_;
      answer = std::move(coming_);
      return Next::kAnswer;
    }
    // Of what came with one Sync the last, which is the lookup's, or the error that ended it.
    if (!coming_ || coming_.is_good()) coming_ = std::move(got);
  }
  return Next::kNothing;
}

std::string PgConnection::host() const {
  const char* const host = PQhost(connection_.get());
  return host == nullptr ? "" : host;
}

std::string PgConnection::Message() const {
  return OneLine(PQerrorMessage(connection_.get()));
}

void PgConnection::Watch(uint32_t events) {
  const int socket = PQsocket(connection_.get());
  if (socket < 0 || (socket == watched_ && events == watched_events_)) return;
  epoll_event event{.events = events, .data = {.u64 = tag_}};
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event) != 0) {
    epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
  }
  watched_ = socket;
  watched_events_ = events;
}

}  // namespace keys
