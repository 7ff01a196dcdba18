#include "handler/database/lookup_batcher.h"

#include <algorithm>
#include <array>

#include "handler/base/log.h"

namespace keys {
namespace {

// Longer answers are fetched with fewer lookups together, to bound the memory they take.
constexpr size_t kLongAnswer = 1024 * 1024;
// libpq's buffer stays as large as the longest row it ever took. A connection that had a row this
// long is replaced when it has had none for kRenewAfter and has nothing to do.
constexpr size_t kLongRow = 1024 * 1024;
constexpr std::chrono::seconds kRenewAfter{5};
// A connection that ends sooner without an answer has failed: a server may end each one it accepts.
constexpr std::chrono::seconds kShortLife{1};

constexpr std::string_view kLockNotAvailable = "55P03";
constexpr std::string_view kReadOnly = "25006";

}  // namespace

LookupBatcher::LookupBatcher(const std::string& url, std::string sql,
                             std::chrono::milliseconds deadline, int epoll, uint64_t tag,
                             Answered answered)
    : conninfo_(url),
      sql_(std::move(sql)),
      deadline_(deadline),
      epoll_(epoll),
      tag_(tag),
      answered_(std::move(answered)),
      reconnect_(conninfo_.hosts(), deadline, Clock::now()) {
  Connect(Clock::now());
}

// --- the connection ------------------------------------------------------------------------------

void LookupBatcher::Connect(Clock::time_point now) {
  state_ = State::kConnecting;
  give_up_at_ = now + kConnectTimeout;
  connection_.emplace(conninfo_, reconnect_.host(), epoll_, tag_);
  ContinueConnecting(now);
}

void LookupBatcher::ContinueConnecting(Clock::time_point now) {
  const PgConnection::Connecting progress = connection_->Continue();
  if (progress == PgConnection::Connecting::kUnderWay) return;
  if (progress == PgConnection::Connecting::kFailed) return DisconnectWithLibpqError(now);
  state_ = State::kPreparing;
  last_progress_ = now;
  // The server gives up a little before we do, so that a statement which takes too long ends there.
  in_flight_.emplace_back();
  if (!connection_->SetTimeouts(deadline_ * 9 / 10, deadline_ / 16, deadline_ / 4) ||
      !SendPrepare()) {
    DisconnectWithLibpqError(now);
  }
}

bool LookupBatcher::SendPrepare() {
  ++statement_;
  in_flight_.emplace_back().statement = statement_;
  return connection_->Prepare(statement_, sql_);
}

// A part of the preparation has been answered.
void LookupBatcher::Prepared(const Batch& batch, const Answer& answer, Clock::time_point now) {
  if (!answer.is_good()) {
    Disconnect(answer.Message(), answer.sqlstate(), now);
    return;
  }
  if (batch.statement != statement_ || state_ != State::kPreparing) return;
  state_ = State::kReady;
  ready_at_ = now;
  renew_at_ = Clock::time_point::max();
  has_answered_ = false;
  ++reconnects_;
  if (reconnect_.ShouldLog(ReconnectPolicy::Event::kConnected)) {
    Log(Level::kInfo, "database_connected",
        {{"host", connection_->host()},
         {"attempts", static_cast<int64_t>(reconnect_.failures() + 1)}});
  }
}

void LookupBatcher::DisconnectWithLibpqError(Clock::time_point now) {
  const std::string message = connection_->Message();
  Disconnect(message, SqlStateIn(message), now);
}

// The connection, or the attempt to make one, is over.
void LookupBatcher::Disconnect(std::string_view reason, std::string_view sqlstate,
                               Clock::time_point now) {
  const bool was_ready = state_ == State::kReady;
  const bool was_stalled = IsStalled(now);
  std::vector<Lookup> unanswered;
  for (const Batch& batch : in_flight_) {
    for (const Lookup& lookup : batch.lookups) {
      if (!lookup.abandoned) unanswered.push_back(lookup);
    }
  }
  in_flight_.clear();
  connection_.reset();
  state_ = State::kWaiting;
  // One that has ended a connection alone, too, is to blame: nobody else is refused for it, once.
  const bool is_poison = was_ready && !poison_seen_ && unanswered.size() == 1 &&
                         unanswered[0].alone && unanswered[0].times_sent > 1;
  poison_seen_ = poison_seen_ || is_poison;
  if (was_ready && (has_answered_ || is_poison || now - ready_at_ >= kShortLife)) {
    reconnect_.OnLost(was_stalled ? last_progress_ : now, now,
                      was_stalled || sqlstate == kReadOnly);
  } else {
    reconnect_.OnConnectFailed(now);
  }

  const bool open = reconnect_.CircuitIsOpen(now);
  const auto rejected =
      std::stable_partition(unanswered.begin(), unanswered.end(), [&](const Lookup& lookup) {
        return !open && lookup.times_sent < 2 && lookup.deadline > now;
      });
  if (reconnect_.ShouldLog(was_ready ? ReconnectPolicy::Event::kLost
                                     : ReconnectPolicy::Event::kUnreachable)) {
    Log(Level::kWarning, was_ready ? "database_lost" : "database_unreachable",
        {{"sqlstate", sqlstate},
         {"in_flight", static_cast<int64_t>(unanswered.size())},
         {"retried", static_cast<int64_t>(rejected - unanswered.begin())},
         {"reason", reason}});
  }
  for (auto lookup = rejected; lookup != unanswered.end(); ++lookup) {
    Fail(*lookup, DatabaseFault::kUnavailable, sqlstate);
  }
  unanswered.erase(rejected, unanswered.end());
  // Each by itself: one of them may be what ends connections.
  for (Lookup& lookup : unanswered) lookup.alone = true;
  waiting_.PutBack(unanswered);
  if (!open) return;
  FailQueuedIf([](const Lookup&) { return true; }, DatabaseFault::kUnavailable, sqlstate);
}

// --- lookups -----------------------------------------------------------------------------------

void LookupBatcher::Submit(uint64_t ticket, const Uuid& user, const Uuid& session,
                           Clock::time_point now) {
  const Lookup lookup{
      .ticket = ticket, .user = user, .session = session, .deadline = now + deadline_};
  if (state_ != State::kReady && reconnect_.CircuitIsOpen(now)) {
    Fail(lookup, DatabaseFault::kUnavailable, {});
  } else {
    waiting_.Push(lookup);
  }
}

void LookupBatcher::Cancel(uint64_t ticket) {
  waiting_.Remove([&](const Lookup& lookup) { return lookup.ticket == ticket; });
  for (Batch& batch : in_flight_) {
    for (Lookup& lookup : batch.lookups) {
      if (lookup.ticket == ticket) lookup.abandoned = true;
    }
  }
}

void LookupBatcher::Send(Clock::time_point now) {
  while (state_ == State::kReady && !waiting_.empty() && in_flight_.size() < kMaxInFlight) {
    if (!SendBatch(now)) DisconnectWithLibpqError(now);
  }
}

bool LookupBatcher::SendBatch(Clock::time_point now) {
  if (in_flight_.empty()) last_progress_ = now;
  Batch& batch = in_flight_.emplace_back();
  batch.lookups = waiting_.Take(max_batch_);
  batch.statement = statement_;
  for (Lookup& lookup : batch.lookups) {
    ++lookup.times_sent;
    batch.deadline = std::min(batch.deadline, lookup.deadline);
  }
  return connection_->Ask(statement_, batch.lookups);
}

// --- answers -------------------------------------------------------------------------------------

void LookupBatcher::OnEvent(Clock::time_point now) {
  if (state_ == State::kConnecting) {
    ContinueConnecting(now);
  } else if (state_ != State::kWaiting) {
    const bool is_over = !connection_->Receive();
    HandleResults(now);  // what came before the end, a FATAL with its SQLSTATE perhaps
    if (is_over && connection_) DisconnectWithLibpqError(now);
  }
}

void LookupBatcher::HandleResults(Clock::time_point now) {
  while (connection_) {
    Answer answer;
    const PgConnection::Next next = connection_->TakeAnswer(answer);
    if (next == PgConnection::Next::kNothing) return;
    last_progress_ = now;
    if (next == PgConnection::Next::kEnd) {
      Disconnect(answer.Message(), answer.sqlstate(), now);
      return;
    }
    // Its Sync has come: the transaction is over, and committed unless there was an error.
    Batch batch = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (batch.lookups.empty()) {
      Prepared(batch, answer, now);
    } else if (answer.is_good()) {
      HandleRows(batch, answer, now);
    } else {
      HandleError(batch, answer, now);
    }
  }
}

void LookupBatcher::HandleRows(const Batch& batch, const Answer& answer, Clock::time_point now) {
  has_answered_ = true;
  poison_seen_ = false;
  reconnect_.OnSuccess();
  if (answer.memory() > kLongAnswer) {
    max_batch_ = std::max<size_t>(batch.lookups.size() / 2, 1);
  } else if (answer.memory() < kLongAnswer / 4 && batch.lookups.size() == max_batch_) {
    max_batch_ = std::min(max_batch_ * 2, kMaxBatch);
  }
  Send(now);  // the server works on while these are answered

  const std::vector<Lookup>& lookups = batch.lookups;
  std::array<int, kMaxBatch> row_of;  // the lookup of that number; -1: none
  row_of.fill(-1);
  for (int number = 0; number < answer.rows(); ++number) {
    const Row row = answer.row(number);
    Uuid user;
    row.Bytes(0).copy(reinterpret_cast<char*>(user.bytes.data()), user.bytes.size());
    const auto asked = std::lower_bound(
        lookups.begin(), lookups.end(), user,
        [](const Lookup& lookup, const Uuid& other) { return lookup.user < other; });
    if (asked == lookups.end() || asked->user != user) {  // this is not our statement's answer
      for (const Lookup& lookup : lookups) {
        Fail(lookup, DatabaseFault::kInternal, {});
      }
      return;
    }
    row_of[static_cast<size_t>(asked - lookups.begin())] = number;
    if (row.length() > kLongRow) renew_at_ = now + kRenewAfter;
  }
  for (size_t i = 0; i < lookups.size(); ++i) {
    if (lookups[i].abandoned) continue;
    const Row row = answer.row(row_of[i]);
    answered_(lookups[i].ticket, row_of[i] < 0 ? nullptr : &row, DatabaseFault::kNone, {});
  }
}

void LookupBatcher::HandleError(Batch& batch, const Answer& answer, Clock::time_point now) {
  const std::string sqlstate = answer.sqlstate();
  const ErrorPolicy& policy = PolicyFor(sqlstate);
  if (policy.action == Action::kReconnect) {
    in_flight_.push_front(std::move(batch));  // it ends with the connection
    return Disconnect(answer.Message(), sqlstate, now);
  }
  const bool was_alone = batch.lookups.front().alone;
  const bool may_help = policy.action != Action::kSplitBatch || batch.lookups.size() > 1 ||
                        (sqlstate == kLockNotAvailable && !was_alone);
  const bool is_remedied = policy.action != Action::kFail && may_help;
  std::vector<Lookup> again;
  for (Lookup& lookup : batch.lookups) {
    if (is_remedied && lookup.times_sent < 2 && lookup.deadline > now && !lookup.abandoned) {
      lookup.alone = policy.action == Action::kRetry || policy.action == Action::kSplitBatch;
      again.push_back(lookup);
    } else {
      Fail(lookup, policy.fault, sqlstate);
    }
  }
  waiting_.PutBack(again);
  if (!again.empty()) {
    Log(Level::kInfo, "batch_retried",
        {{"sqlstate", sqlstate}, {"lookups", static_cast<int64_t>(again.size())}});
  }
  if (policy.action == Action::kReprepare && batch.statement == statement_) {
    Log(Level::kInfo, "statement_prepared_again", {{"sqlstate", sqlstate}});
    if (!SendPrepare()) DisconnectWithLibpqError(now);
  } else if (sqlstate == kLockNotAvailable && was_alone) {
    // Whoever else waits for this user would wait in vain as well.
    FailQueuedIf([user = batch.lookups[0].user](const auto& other) { return other.user == user; },
                 policy.fault, sqlstate);
  }
}

void LookupBatcher::FailQueuedIf(const std::function<bool(const Lookup&)>& whose,
                                 DatabaseFault fault, std::string_view sqlstate) {
  waiting_.Remove([&](const Lookup& lookup) {
    if (!whose(lookup)) return false;
    Fail(lookup, fault, sqlstate);
    return true;
  });
}

void LookupBatcher::Fail(const Lookup& lookup, DatabaseFault fault, std::string_view sqlstate) {
  if (!lookup.abandoned) answered_(lookup.ticket, nullptr, fault, sqlstate);
}

// --- time ----------------------------------------------------------------------------------------

void LookupBatcher::TimeOut(Batch& batch, Clock::time_point now) {
  batch.deadline = Clock::time_point::max();
  for (Lookup& lookup : batch.lookups) {
    if (lookup.abandoned) continue;
    if (lookup.deadline > now) {
      batch.deadline = std::min(batch.deadline, lookup.deadline);
    } else {
      Fail(lookup, DatabaseFault::kTimeout, {});
      lookup.abandoned = true;
    }
  }
}

bool LookupBatcher::IsStalled(Clock::time_point now) const {
  return state_ == State::kReady && !in_flight_.empty() && last_progress_ + deadline_ <= now;
}

void LookupBatcher::OnTime(Clock::time_point now) {
  if (waiting_.NextDeadline() <= now) {
    FailQueuedIf([&](const Lookup& lookup) { return lookup.deadline <= now; },
                 DatabaseFault::kTimeout, {});
  }
  for (Batch& batch : in_flight_) {
    if (batch.deadline <= now) TimeOut(batch, now);
  }
  if (state_ == State::kWaiting && reconnect_.retry_at() <= now) {
    Connect(now);
  } else if ((state_ == State::kConnecting || state_ == State::kPreparing) && give_up_at_ <= now) {
    Disconnect("no connection within the time for one host", {}, now);
  } else if (IsStalled(now)) {
    // statement_timeout is shorter than the deadline, so a server that is alive would have spoken.
    Disconnect("the server is silent", {}, now);
  } else if (state_ == State::kReady && in_flight_.empty() && waiting_.empty() &&
             renew_at_ <= now) {
    Connect(now);
  }
}

Clock::time_point LookupBatcher::NextTime() const {
  Clock::time_point next = waiting_.NextDeadline();
  for (const Batch& batch : in_flight_) next = std::min(next, batch.deadline);
  if (state_ == State::kWaiting) return std::min(next, reconnect_.retry_at());
  if (state_ != State::kReady) return std::min(next, give_up_at_);
  return in_flight_.empty() ? next : std::min(next, last_progress_ + deadline_);
}

}  // namespace keys
