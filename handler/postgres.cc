#include "handler/postgres.h"

#include <libpq-fe.h>
#include <sys/epoll.h>

#include <algorithm>

#include "handler/log.h"
#include "handler/sqlstate.h"

namespace keys {
namespace {

constexpr unsigned kUuidType = 2950;  // pg_type.oid
constexpr std::chrono::milliseconds kFirstBackoff{50};
constexpr std::chrono::milliseconds kLongestBackoff{1000};

std::string_view SqlState(const PGresult* result) {
  const char* const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  return state == nullptr ? std::string_view{} : state;
}

std::string StatementName(int number) {
  return "list_keys_" + std::to_string(number);
}

}  // namespace

Rows::Rows(const PGresult* result)
    : result_(result), count_(PQntuples(result)), columns_(PQnfields(result)) {}
bool Rows::IsNull(int row, int column) const {
  return PQgetisnull(result_, row, column) != 0;
}
std::string_view Rows::Bytes(int row, int column) const {
  return {PQgetvalue(result_, row, column), static_cast<size_t>(PQgetlength(result_, row, column))};
}

void Postgres::CloseConnection::operator()(PGconn* connection) const {
  PQfinish(connection);
}
void Postgres::ClearResult::operator()(PGresult* result) const {
  PQclear(result);
}

Postgres::Postgres(const std::string& url, std::string sql, std::chrono::milliseconds deadline,
                   int epoll, uint64_t tag, Answered answered)
    : targets_(url),
      sql_(std::move(sql)),
      deadline_(deadline),
      epoll_(epoll),
      tag_(tag),
      answered_(std::move(answered)),
      random_(std::random_device{}()) {
  Connect(Clock::now());
}

Postgres::~Postgres() = default;

void Postgres::Connect(Clock::time_point now) {
  state_ = State::kConnecting;
  give_up_at_ = now + kConnectTimeout;
  watched_ = -1;
  connection_.reset(targets_.StartConnecting(host_));
  if (!connection_ || PQstatus(connection_.get()) == CONNECTION_BAD) {
    Lose(Message(), {}, now);
    return;
  }
  Watch(EPOLLOUT);
}

void Postgres::ContinueConnecting(Clock::time_point now) {
  switch (PQconnectPoll(connection_.get())) {
    case PGRES_POLLING_READING:
      watched_ = -1;
      Watch(EPOLLIN);
      return;
    case PGRES_POLLING_WRITING:
      watched_ = -1;
      Watch(EPOLLOUT);
      return;
    case PGRES_POLLING_OK:
      break;
    default:
      Lose(Message(), {}, now);
      return;
  }
  state_ = State::kPreparing;
  last_progress_ = now;
  // The server gives up a little before we do, so that a statement which takes too long ends there.
  const std::string timeout = std::to_string((deadline_ * 9 / 10).count());
  const char* const value = timeout.c_str();
  Item setting{.kind = Kind::kPrepare};
  const bool sent =
      PQsetnonblocking(connection_.get(), 1) == 0 && PQenterPipelineMode(connection_.get()) == 1 &&
      PQsendQueryParams(connection_.get(), "SELECT set_config('statement_timeout', $1, false)", 1,
                        nullptr, &value, nullptr, nullptr, 1) == 1 &&
      PQpipelineSync(connection_.get()) == 1;
  in_flight_.push_back(std::move(setting));
  if (!sent || !SendPrepare()) Lose(Message(), {}, now);
}

bool Postgres::SendPrepare() {
  const Oid types[] = {kUuidType, kUuidType};
  ++statement_;
  Item item{.kind = Kind::kPrepare, .statement = statement_};
  in_flight_.push_back(std::move(item));
  const bool sent = PQsendPrepare(connection_.get(), StatementName(statement_).c_str(),
                                  sql_.c_str(), 2, types) == 1 &&
                    PQpipelineSync(connection_.get()) == 1;
  Watch(PQflush(connection_.get()) == 1 ? EPOLLIN | EPOLLOUT : EPOLLIN);
  return sent;
}

void Postgres::Submit(uint64_t ticket, const Parameters& parameters, Clock::time_point now) {
  Item item{.ticket = ticket, .parameters = parameters, .deadline = now + deadline_};
  if (state_ != State::kReady && failures_ > 0) {
    AnswerFault(item, DatabaseFault::kUnavailable, {});
  } else if (state_ == State::kReady && waiting_.empty() && in_flight_.size() < kMostInFlight) {
    if (!Send(std::move(item), now)) Lose(Message(), {}, now);
  } else {
    waiting_.push_back(std::move(item));
  }
}

void Postgres::Cancel(uint64_t ticket) {
  std::erase_if(waiting_, [&](const Item& item) { return item.ticket == ticket; });
  for (Item& item : in_flight_) {
    if (item.kind == Kind::kQuestion && item.ticket == ticket) item.abandoned = true;
  }
}

bool Postgres::Send(Item item, Clock::time_point now) {
  if (in_flight_.empty()) last_progress_ = now;
  item.statement = statement_;
  ++item.times_sent;
  in_flight_.push_back(std::move(item));
  const auto& [user, session] = in_flight_.back().parameters;
  const char* const values[] = {reinterpret_cast<const char*>(user.bytes.data()),
                                reinterpret_cast<const char*>(session.bytes.data())};
  const int lengths[] = {16, 16};
  const int formats[] = {1, 1};
  const std::string name = StatementName(statement_);
  if (PQsendQueryPrepared(connection_.get(), name.c_str(), 2, values, lengths, formats, 1) != 1 ||
      PQpipelineSync(connection_.get()) != 1) {  // which also writes to the socket
    return false;
  }
  const int unsent = PQflush(connection_.get());
  if (unsent == 1) Watch(EPOLLIN | EPOLLOUT);
  return unsent >= 0;
}

void Postgres::SendWaiting(Clock::time_point now) {
  while (state_ == State::kReady && !waiting_.empty() && in_flight_.size() < kMostInFlight) {
    Item item = std::move(waiting_.front());
    waiting_.pop_front();
    if (!Send(std::move(item), now)) Lose(Message(), {}, now);
  }
}

void Postgres::OnEvent(Clock::time_point now) {
  if (state_ == State::kConnecting) {
    ContinueConnecting(now);
  } else if (state_ == State::kPreparing || state_ == State::kReady) {
    if (PQconsumeInput(connection_.get()) != 1) {
      ReadResults(now);  // what came before the end, a FATAL with its SQLSTATE perhaps
      if (state_ != State::kWaiting && state_ != State::kConnecting) Lose(Message(), {}, now);
      return;
    }
    ReadResults(now);
    if (state_ == State::kPreparing || state_ == State::kReady) {
      Watch(PQflush(connection_.get()) == 1 ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    SendWaiting(now);
  }
}

void Postgres::ReadResults(Clock::time_point now) {
  int nothing = 0;
  while ((state_ == State::kPreparing || state_ == State::kReady) && nothing < 2) {
    if (PQstatus(connection_.get()) == CONNECTION_BAD && in_flight_.empty()) return;
    if (PQisBusy(connection_.get()) == 1) return;
    Result result(PQgetResult(connection_.get()));
    if (!result) {  // ends each statement's results; twice in a row: there are no more
      ++nothing;
      continue;
    }
    nothing = 0;
    last_progress_ = now;
    const ExecStatusType status = PQresultStatus(result.get());
    if (in_flight_.empty()) {  // nobody asked: the server tells us that it is going away
      Lose(OneLine(PQresultErrorMessage(result.get())), SqlState(result.get()), now);
    } else if (status == PGRES_PIPELINE_SYNC) {
      Item item = std::move(in_flight_.front());
      in_flight_.pop_front();
      Finish(std::move(item), now);
    } else if (status == PGRES_FATAL_ERROR && PQstatus(connection_.get()) == CONNECTION_BAD) {
      Lose(OneLine(PQresultErrorMessage(result.get())), SqlState(result.get()), now);
    } else if (!in_flight_.front().result) {
      in_flight_.front().result = std::move(result);
    }
  }
}

// An item's Sync has come: its transaction is over, and committed unless there was an error.
void Postgres::Finish(Item item, Clock::time_point now) {
  const ExecStatusType status = PQresultStatus(item.result.get());
  const std::string_view sqlstate = SqlState(item.result.get());
  if (item.kind == Kind::kPrepare) {
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
      Lose(OneLine(PQresultErrorMessage(item.result.get())), sqlstate, now);
    } else if (item.statement == statement_ && state_ == State::kPreparing) {
      state_ = State::kReady;
      if (outage_logged_ || reconnects_ == 0) {
        Log(Level::kInfo, "database_connected",
            {{"host", PQhost(connection_.get())}, {"attempts", failures_ + 1}});
      }
      ++reconnects_;
      outage_logged_ = failure_logged_ = false;
      failures_ = 0;
      SendWaiting(now);
    }
    return;
  }
  if (status == PGRES_TUPLES_OK) {
    if (item.abandoned) return;
    const Rows rows(item.result.get());
    answered_(item.ticket, &rows, DatabaseFault::kNone, {});
    return;
  }
  const Treatment& treatment = TreatmentOf(sqlstate);
  if (treatment.remedy == Remedy::kPrepareAgain && item.statement == statement_) {
    Log(Level::kInfo, "statement_prepared_again", {{"sqlstate", sqlstate}});
    if (!SendPrepare()) {
      Lose(Message(), {}, now);
      return;
    }
  }
  const bool again = treatment.remedy != Remedy::kNone && item.times_sent < 2 &&
                     item.deadline > now && !item.abandoned;
  if (again) {
    const bool reconnect = treatment.remedy == Remedy::kReconnect;
    const std::string state(sqlstate);
    const std::string message = OneLine(PQresultErrorMessage(item.result.get()));
    item.result.reset();
    waiting_.push_front(std::move(item));
    if (reconnect) Lose(message, state, now);
  } else {
    AnswerFault(item, treatment.fault, sqlstate);
  }
}

void Postgres::AnswerFault(const Item& item, DatabaseFault fault, std::string_view sqlstate) {
  if (!item.abandoned) answered_(item.ticket, nullptr, fault, sqlstate);
}

// The connection, or the attempt to make one, is over.
void Postgres::Lose(std::string_view reason, std::string_view sqlstate, Clock::time_point now) {
  const bool was_ready = state_ == State::kReady;
  if (!was_ready) ++failures_;
  if (was_ready || !failure_logged_) {  // not every attempt of an outage: the first that fails
    outage_logged_ = true;
    failure_logged_ = !was_ready;
    Log(Level::kWarning, was_ready ? "database_lost" : "database_unreachable",
        {{"sqlstate", sqlstate},
         {"in_flight", static_cast<int64_t>(in_flight_.size())},
         {"reason", reason}});
  }
  std::deque<Item> unanswered;
  unanswered.swap(in_flight_);
  connection_.reset();
  watched_ = -1;
  state_ = State::kWaiting;
  if (++host_ == targets_.hosts()) host_ = 0;
  // Right away after a loss and to the next host of the list; a whole round of failures waits.
  connect_at_ = now;
  const int rounds = failures_ / static_cast<int>(targets_.hosts());
  if (rounds > 0 && failures_ % static_cast<int>(targets_.hosts()) == 0) {
    const auto backoff = std::min(kFirstBackoff * (1 << std::min(rounds - 1, 10)), kLongestBackoff);
    connect_at_ += backoff / 2 + backoff * (random_() % 1000) / 2000;
  }
  while (!unanswered.empty()) {
    Item item = std::move(unanswered.back());
    unanswered.pop_back();
    if (item.kind == Kind::kPrepare || item.abandoned) continue;
    item.result.reset();
    if (item.times_sent < 2 && item.deadline > now && failures_ == 0) {
      waiting_.push_front(std::move(item));
    } else {
      AnswerFault(item, DatabaseFault::kUnavailable, sqlstate);
    }
  }
  if (failures_ == 0) return;
  std::deque<Item> hopeless;
  hopeless.swap(waiting_);
  for (const Item& item : hopeless) AnswerFault(item, DatabaseFault::kUnavailable, sqlstate);
}

void Postgres::OnTime(Clock::time_point now) {
  while (!waiting_.empty() && waiting_.front().deadline <= now) {
    const Item item = std::move(waiting_.front());
    waiting_.pop_front();
    AnswerFault(item, DatabaseFault::kTimeout, {});
  }
  for (Item& item : in_flight_) {
    if (item.kind == Kind::kPrepare || item.abandoned) continue;
    if (item.deadline > now) break;
    AnswerFault(item, DatabaseFault::kTimeout, {});
    item.abandoned = true;
  }
  if (state_ == State::kWaiting && connect_at_ <= now) {
    Connect(now);
  } else if ((state_ == State::kConnecting || state_ == State::kPreparing) && give_up_at_ <= now) {
    Lose("no connection within the time for one host", {}, now);
  } else if (state_ == State::kReady && !in_flight_.empty() && last_progress_ + deadline_ <= now) {
    // statement_timeout is shorter than the deadline, so a server that is alive would have spoken.
    ++failures_;
    Lose("the server is silent", {}, now);
  }
}

Clock::time_point Postgres::NextTime() const {
  Clock::time_point next = Clock::time_point::max();
  if (!waiting_.empty()) next = waiting_.front().deadline;
  for (const Item& item : in_flight_) {
    if (item.kind == Kind::kPrepare || item.abandoned) continue;
    next = std::min(next, item.deadline);
    break;
  }
  if (state_ == State::kWaiting) return std::min(next, connect_at_);
  if (state_ != State::kReady) return std::min(next, give_up_at_);
  return in_flight_.empty() ? next : std::min(next, last_progress_ + deadline_);
}

void Postgres::Watch(uint32_t events) {
  const int socket = PQsocket(connection_.get());
  if (socket < 0 || (socket == watched_ && events == watched_events_)) return;
  epoll_event event{.events = events, .data = {.u64 = tag_}};
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event) != 0) {
    epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
  }
  watched_ = socket;
  watched_events_ = events;
}

std::string Postgres::Message() const {
  return OneLine(PQerrorMessage(connection_.get()));
}

}  // namespace keys
