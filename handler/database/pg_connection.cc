#include "handler/database/pg_connection.h"

#include <libpq-fe.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>

#include "handler/base/log.h"

namespace keys {
namespace {

// pg_type.oid
constexpr uint32_t kUuidType = 2950;
constexpr uint32_t kIntegerType = 23;

std::string StatementName(int number) {
  return "list_keys_" + std::to_string(number);
}

void AppendInt32(std::string& bytes, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
}

// Writes the head of an array in binary format: dimensions, has-null flag, element type, length,
// lower bound. The elements follow, each after its size.
void BeginArray(std::string& bytes, uint32_t type, size_t length) {
  bytes.clear();
  for (const uint32_t word : {1u, 0u, type, static_cast<uint32_t>(length), 1u}) {
    AppendInt32(bytes, word);
  }
}

using UuidField = Uuid Lookup::*;

void WriteUuids(const std::vector<Lookup>& lookups, UuidField which, std::string& bytes) {
  BeginArray(bytes, kUuidType, lookups.size());
  for (const Lookup& lookup : lookups) {
    const auto& uuid = (lookup.*which).bytes;
    AppendInt32(bytes, static_cast<uint32_t>(uuid.size()));
    bytes.append(reinterpret_cast<const char*>(uuid.data()), uuid.size());
  }
}

void WriteRequests(const std::vector<Lookup>& lookups, std::string& bytes) {
  BeginArray(bytes, kIntegerType, lookups.size());
  for (const Lookup& lookup : lookups) {
    AppendInt32(bytes, sizeof(int32_t));
    AppendInt32(bytes, static_cast<uint32_t>(lookup.waiters.size()));
  }
}

}  // namespace

PgConnection::PgConnection(const Conninfo& conninfo, size_t host, int epoll, uint64_t tag)
    : epoll_(epoll), tag_(tag), connection_(conninfo.StartConnect(host)) {
  PQsetNoticeReceiver(connection_.get(), &OnNotice, this);
}

PgConnection::~PgConnection() = default;

void PgConnection::Close::operator()(PGconn* connection) const {
  PQfinish(connection);
}

// Logs the server's notices, above all why it ends a connection. libpq would print them to stderr.
void PgConnection::OnNotice(void* self, const PGresult* notice) {
  const char* const field = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
  const std::string_view state = field == nullptr ? "" : field;
  if (state.starts_with("57P")) static_cast<PgConnection*>(self)->announced_end_ = state;
  Log(Level::kWarning, "database_notice",
      {{"sqlstate", state}, {"text", OneLine(PQresultErrorMessage(notice))}});
}

// Whether PQconnectPoll may be called: it takes a call to mean that the socket is ready.
bool PgConnection::IsReady() const {
  pollfd socket{.fd = watched_,
                .events = static_cast<short>((watched_events_ & EPOLLIN) != 0 ? POLLIN : POLLOUT),
                .revents = 0};
  return poll(&socket, 1, 0) == 1;
}

PgConnection::Progress PgConnection::Continue() {
  PGconn* const connection = connection_.get();
  if (PQstatus(connection) == CONNECTION_BAD) return Progress::kFailed;
  const bool is_new = watched_ < 0;
  if (!is_new && !IsReady()) return Progress::kUnderWay;
  // libpq's documentation: behave at first as if PQconnectPoll had returned this.
  const auto wants = is_new ? PGRES_POLLING_WRITING : PQconnectPoll(connection);
  if (wants == PGRES_POLLING_READING || wants == PGRES_POLLING_WRITING) {
    watched_ = -1;  // it may be a new socket with the same number
    Watch(wants == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT);
    return watched_ < 0 ? Progress::kFailed : Progress::kUnderWay;
  }
  if (wants != PGRES_POLLING_OK || PQsetnonblocking(connection, 1) != 0 ||
      PQenterPipelineMode(connection) != 1) {
    return Progress::kFailed;
  }
  PQsetErrorVerbosity(connection, PQERRORS_DEFAULT);
  return Progress::kDone;
}

bool PgConnection::Configure(std::chrono::milliseconds statement, std::chrono::milliseconds lock,
                             std::chrono::milliseconds lock_alone) {
  lock_alone_ = std::to_string(lock_alone.count());
  const std::string texts[] = {std::to_string(statement.count()), std::to_string(lock.count())};
  const char* const values[] = {texts[0].c_str(), texts[1].c_str()};
  return Sync(PQsendQueryParams(
      connection_.get(),
      "SELECT CASE WHEN pg_is_in_recovery() THEN 'on' ELSE current_setting('transaction_read_only')"
      " END, CASE WHEN EXISTS (SELECT FROM public.tiers WHERE name = 'free') THEN 'on' ELSE 'off'"
      " END, set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false),"
      " set_config('client_encoding', 'UTF8', false), set_config('row_security', 'on', false),"
      " set_config('default_transaction_isolation', 'read committed', false),"
      " set_config('search_path', '', false)",
      2, nullptr, values, nullptr, nullptr, 1));
}

bool PgConnection::Prepare(int statement, const std::string& sql) {
  return Sync(
      PQsendPrepare(connection_.get(), StatementName(statement).c_str(), sql.c_str(), 0, nullptr));
}

bool PgConnection::Send(int statement, const std::vector<Lookup>& lookups) {
  if (lookups.front().alone) {  // no Sync between the two statements: one transaction
    const char* const value[] = {lock_alone_.c_str()};
    if (PQsendQueryParams(connection_.get(), "SELECT set_config('lock_timeout', $1, true)", 1,
                          nullptr, value, nullptr, nullptr, 1) != 1) {
      return false;
    }
  }
  WriteUuids(lookups, &Lookup::user, users_);
  WriteUuids(lookups, &Lookup::session, sessions_);
  WriteRequests(lookups, requests_);
  const char* const values[] = {users_.data(), sessions_.data(), requests_.data()};
  const int lengths[] = {static_cast<int>(users_.size()), static_cast<int>(sessions_.size()),
                         static_cast<int>(requests_.size())};
  const int formats[] = {1, 1, 1};
  return Sync(PQsendQueryPrepared(connection_.get(), StatementName(statement).c_str(), 3, values,
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

PgConnection::Next PgConnection::TakeResult(Result& result) {
  PGconn* const connection = connection_.get();
  int nothing = 0;
  while (nothing < 2) {
    if (PQstatus(connection) == CONNECTION_BAD && unanswered_ == 0) return Next::kNothing;
    if (PQisBusy(connection) == 1) return Next::kNothing;
    PGresult* const raw = PQgetResult(connection);
    if (raw == nullptr) {  // ends each statement's results; twice in a row: there are no more
      ++nothing;
      continue;
    }
    nothing = 0;
    Result got(raw);
    const ExecStatusType status = PQresultStatus(raw);
    const bool is_end = status == PGRES_FATAL_ERROR && PQstatus(connection) == CONNECTION_BAD;
    if (unanswered_ == 0 || is_end) {  // an unrequested result announces the end, too
      // The server's own FATAL, with its SQLSTATE, comes before libpq's error about the end.
      result = std::move(coming_ && !coming_.is_good() ? coming_ : got);
      return Next::kEnd;
    }
    if (status == PGRES_PIPELINE_SYNC) {
      --unanswered_;
      result = std::move(coming_);
      return Next::kResult;
    }
    // Of the results before one Sync, keep the last, which is the statement's, or the first error.
    if (!coming_ || coming_.is_good()) coming_ = std::move(got);
  }
  return Next::kNothing;
}

std::string PgConnection::server() const {
  const char* const host = PQhost(connection_.get());
  const char* const port = PQport(connection_.get());
  std::string server = host == nullptr ? "" : host;
  if (port != nullptr && *port != '\0') server.append(":").append(port);
  return server;
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
