#include "handler/database/lookup_batcher.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "handler/base/log.h"

namespace keys {
namespace {

// After a larger result, batches are smaller, to bound the memory of results.
constexpr size_t kMaxResult = 1024 * 1024;
// A connection that ends sooner without an answer counts as a failed attempt: a server may end
// every connection that it accepts.
constexpr std::chrono::seconds kShortLife{1};

constexpr std::string_view kLockNotAvailable = "55P03";
constexpr std::string_view kQueryCanceled = "57014";

constexpr std::string_view kReadOnly = "the server is read-only";
constexpr std::string_view kHidden =
    "the role sees no tier 'free' in public.tiers; keys-fcgi --check tells why";

}  // namespace

LookupBatcher::LookupBatcher(Options options, Answered answered, Clock::time_point now)
    : options_(std::move(options)),
      conninfo_(options_.url),
      answered_(std::move(answered)),
      reconnect_(options_.deadline, now, options_.seed),
      attempts_(conninfo_.hosts()) {
  Connect(now);
}

// --- connecting ----------------------------------------------------------------------------------

// Starts an attempt for each host that has none.
void LookupBatcher::Connect(Clock::time_point now) {
  assert(!in_flight_);
  state_ = State::kConnecting;
  connection_.reset();
  for (size_t host = 0; host < attempts_.size() && state_ == State::kConnecting; ++host) {
    if (attempts_[host].connection) continue;
    attempts_[host] = {
        .connection = std::make_unique<PgConnection>(conninfo_, host, options_.epoll, options_.tag),
        .give_up_at = now + kConnectTimeout};
    Advance(host, now);
  }
}

void LookupBatcher::Advance(size_t host, Clock::time_point now) {
  Attempt& attempt = attempts_[host];
  PgConnection& connection = *attempt.connection;
  if (!attempt.is_configuring) {
    const PgConnection::Progress progress = connection.Continue();
    if (progress == PgConnection::Progress::kUnderWay) return;
    // The server's timeout is a little shorter than the deadline, so that the server cancels a slow
    // statement before we stop waiting for it.
    if (progress == PgConnection::Progress::kFailed ||
        !connection.Configure(options_.deadline * 9 / 10, options_.deadline / 16,
                              options_.deadline / 4)) {
      const std::string message = connection.Message();
      return FailAttempt(host, message, SqlStateIn(message), now);
    }
    attempt.is_configuring = true;
  }
  const bool is_open = connection.Receive();
  Result result;
  const PgConnection::Next next = connection.TakeResult(result);
  if (next == PgConnection::Next::kResult && result.is_good()) {
    const std::string_view obstacle = ObstacleTo(result);
    if (obstacle.empty()) return Prepare(host, now);
    return FailAttempt(host, obstacle, obstacle == kReadOnly ? "25006" : "", now);
  }
  if (next != PgConnection::Next::kNothing) {
    return FailAttempt(host, result.Message(), result.sqlstate(), now);
  }
  if (!is_open) {
    const std::string message = connection.Message();
    FailAttempt(host, message, SqlStateIn(message), now);
  }
}

// Why this server cannot serve; empty when it can. The server itself is asked, because a pooler may
// report something else. If row security hid the tiers, the statement would run, but find nobody
// signed in.
std::string_view LookupBatcher::ObstacleTo(const Result& configured) {
  if (configured.rows() != 1 || configured.row(0).columns() < 2) return kReadOnly;
  const Row row = configured.row(0);
  if (row.Bytes(0) != "off") return kReadOnly;
  return row.Bytes(1) == "on" ? "" : kHidden;
}

void LookupBatcher::FailAttempt(size_t host, std::string_view reason, std::string_view sqlstate,
                                Clock::time_point now) {
  const std::string server = attempts_[host].connection->server();
  attempts_[host] = {};
  reconnect_.OnConnectFailed(sqlstate, now);
  if (reconnect_.ShouldLog(server + ' ' + std::string(reason))) {
    Log(Level::kWarning, "database_unreachable",
        {{"server", server}, {"sqlstate", sqlstate}, {"reason", reason}});
  }
}

// Makes this attempt the connection and ends the others.
void LookupBatcher::Prepare(size_t host, Clock::time_point now) {
  connection_ = std::move(attempts_[host].connection);
  for (Attempt& attempt : attempts_) attempt = {};
  state_ = State::kPreparing;
  is_new_ = true;
  give_up_at_ = now + kConnectTimeout;
  last_progress_ = now;
  if (!connection_->Prepare(++statement_, options_.sql)) DisconnectWithLibpqError(now);
}

void LookupBatcher::HandlePrepared(const Result& result, Clock::time_point now) {
  if (!result.is_good()) return Disconnect(result.Message(), result.sqlstate(), now);
  state_ = State::kReady;
  ready_at_ = now;
  has_answered_ = false;
  if (std::exchange(is_new_, false)) ++stats_.connects;
  if (!was_connected_) {
    Log(Level::kInfo, "database_connected",
        {{"server", connection_->server()}, {"attempts", reconnect_.failures() + 1}});
  }
  was_connected_ = true;
}

// --- losing a connection -------------------------------------------------------------------------

void LookupBatcher::DisconnectWithLibpqError(Clock::time_point now) {
  const std::string message = connection_->Message();
  Disconnect(message, SqlStateIn(message), now);
}

void LookupBatcher::Disconnect(std::string_view reason, std::string_view sqlstate,
                               Clock::time_point now) {
  assert(state_ != State::kConnecting);
  const std::string server = connection_->server();
  // A notice may have announced the end before libpq reported it without a SQLSTATE.
  const std::string announced(sqlstate.empty() ? connection_->announced_end() : sqlstate);
  const bool was_stalled = IsStalled(now);
  const bool may_be_lookup = PolicyFor(announced).may_be_lookup && !was_stalled;
  std::vector<Lookup> unanswered = TakeUnanswered();
  const bool is_poison = may_be_lookup && unanswered.size() == 1 && unanswered.front().alone &&
                         unanswered.front().failures > 0;
  if (may_be_lookup) {
    for (Lookup& lookup : unanswered) {
      ++lookup.failures;
      lookup.alone = true;  // one of them may have ended the connection
    }
  }
  if (is_poison) {
    ++stats_.poison;
    if (!poison_user_) poison_user_ = unanswered.front().user;
  }
  // When the lookup of a second user ends a connection too, the server is the cause.
  const bool is_lookups_fault = is_poison && *poison_user_ == unanswered.front().user;
  RecordLoss(is_lookups_fault, was_stalled ? last_progress_ : now, now);
  state_ = State::kConnecting;
  connection_.reset();

  const auto count = static_cast<int64_t>(unanswered.size());
  const auto retried = static_cast<int64_t>(
      RetryOrFail(std::move(unanswered), DatabaseFault::kUnavailable, announced, now));
  if (reconnect_.ShouldLog(server + ' ' + std::string(reason))) {
    Log(Level::kWarning, "database_lost",
        {{"server", server},
         {"sqlstate", announced},
         {"in_flight", count},
         {"retried", retried},
         {"reason", reason}});
  }
}

// Takes the batch in flight, without the requests that are gone.
std::vector<Lookup> LookupBatcher::TakeUnanswered() {
  std::vector<Lookup> lookups;
  if (in_flight_) lookups = std::move(in_flight_->lookups);
  in_flight_.reset();
  for (Lookup& lookup : lookups) {
    std::erase_if(lookup.waiters, [](const Waiter& waiter) { return waiter.gone; });
  }
  std::erase_if(lookups, [](const Lookup& lookup) { return lookup.waiters.empty(); });
  return lookups;
}

// Tells the policy that a working connection was lost, useless since `since`, or that it never
// worked.
void LookupBatcher::RecordLoss(bool is_lookups_fault, Clock::time_point since,
                               Clock::time_point now) {
  const bool was_ready = state_ == State::kReady;
  if (was_ready && (has_answered_ || is_lookups_fault || now - ready_at_ >= kShortLife)) {
    reconnect_.OnLost(since, now);
    was_connected_ = false;
  } else {
    reconnect_.OnConnectFailed({}, now);
  }
}

// Puts back the lookups that may be sent again, and fails the others. Returns how many it put back.
size_t LookupBatcher::RetryOrFail(std::vector<Lookup> lookups, DatabaseFault fault,
                                  std::string_view sqlstate, Clock::time_point now) {
  const auto rejected = std::stable_partition(
      lookups.begin(), lookups.end(), [&](const Lookup& lookup) { return lookup.failures < 2; });
  for (auto lookup = rejected; lookup != lookups.end(); ++lookup) {
    Fail(lookup->waiters, fault, sqlstate);
  }
  lookups.erase(rejected, lookups.end());
  const size_t retried = lookups.size();
  stats_.retries += static_cast<int64_t>(retried);
  queue_.PutBack(std::move(lookups));
  if (queue_.NextDeadline() <= now) {
    Fail(queue_.TakeExpired(now), DatabaseFault::kTimeout, sqlstate);
  }
  return retried;
}

// --- lookups -------------------------------------------------------------------------------------

void LookupBatcher::Submit(uint64_t request, const Uuid& user, const Uuid& session,
                           Clock::time_point now) {
  const Waiter waiter{.request = request, .deadline = now + options_.deadline};
  if (circuit_is_open(now) || queue_.requests() >= kMaxWaiting) {
    Fail({&waiter, 1}, DatabaseFault::kUnavailable, {});
  } else {
    queue_.Push(user, session, waiter);
  }
}

void LookupBatcher::Cancel(uint64_t request) {
  queue_.Cancel(request);
  if (!in_flight_) return;
  for (Lookup& lookup : in_flight_->lookups) {
    for (Waiter& waiter : lookup.waiters) waiter.gone = waiter.gone || waiter.request == request;
  }
}

void LookupBatcher::Send(Clock::time_point now) {
  if (state_ != State::kReady || in_flight_ || queue_.empty()) return;
  last_progress_ = now;
  in_flight_ = Batch{};
  Batch& batch = *in_flight_;
  batch.lookups = queue_.Take(max_batch_);
  batch.sent_at = now;
  for (const Lookup& lookup : batch.lookups) {
    assert(!lookup.waiters.empty());
    batch.deadline = std::min(batch.deadline, lookup.waiters.front().deadline);
  }
  ++stats_.statements;
  stats_.lookups += static_cast<int64_t>(batch.lookups.size());
  if (!connection_->Send(statement_, batch.lookups)) DisconnectWithLibpqError(now);
}

void LookupBatcher::OnEvent(Clock::time_point now) {
  if (state_ == State::kConnecting) {
    for (size_t host = 0; host < attempts_.size() && state_ == State::kConnecting; ++host) {
      if (attempts_[host].connection) Advance(host, now);
    }
    return;
  }
  const bool is_open = connection_->Receive();
  HandleResults(now);  // also what arrived before the end, perhaps a FATAL with its SQLSTATE
  if (!is_open && connection_) DisconnectWithLibpqError(now);
}

// --- results -------------------------------------------------------------------------------------

void LookupBatcher::HandleResults(Clock::time_point now) {
  while (connection_) {
    Result result;
    const PgConnection::Next next = connection_->TakeResult(result);
    if (next == PgConnection::Next::kNothing) return;
    if (next == PgConnection::Next::kEnd) {
      return Disconnect(result.Message(), result.sqlstate(), now);
    }
    last_progress_ = now;
    // The result's Sync has arrived: the transaction is over, and committed unless it failed.
    if (state_ == State::kPreparing) {
      HandlePrepared(result, now);
    } else if (result.is_good()) {
      HandleRows(result, now);
    } else {
      HandleError(result, now);
    }
  }
}

void LookupBatcher::AdaptBatchSize(const Result& result, size_t lookups) {
  if (result.memory() > kMaxResult) {
    max_batch_ = std::max<size_t>(lookups / 2, 1);
  } else if (result.memory() < kMaxResult / 4 && lookups == max_batch_) {
    max_batch_ = std::min(max_batch_ * 2, kMaxBatch);
  }
}

void LookupBatcher::HandleRows(const Result& result, Clock::time_point now) {
  assert(in_flight_);
  has_answered_ = true;
  poison_user_.reset();
  reconnect_.OnSuccess();
  Batch batch = std::move(*in_flight_);
  in_flight_.reset();
  AdaptBatchSize(result, batch.lookups.size());

  std::vector<const KeyList*> lists(batch.lookups.size());
  if (!lists_.Read(result) || !MatchLists(batch, lists)) {
    Log(Level::kError, "unexpected_row", {{"lookups", static_cast<int64_t>(batch.lookups.size())}});
    for (const Lookup& lookup : batch.lookups) {
      Fail(lookup.waiters, DatabaseFault::kInternal, {});
    }
    return;
  }
  // "No session" and "over the limit" hold for the requests that arrived meanwhile, too. (Not if
  // this process, or its machine, has stood still since.)
  const bool is_recent = now - batch.sent_at < kRefusalValidFor;
  for (size_t i = 0; i < lists.size(); ++i) {
    Lookup& lookup = batch.lookups[i];
    std::vector<Waiter> joined;
    if (!is_recent) break;
    if (lists[i] == nullptr) {
      joined = queue_.TakeSession(lookup.user, lookup.session);
    } else if (static_cast<size_t>(lists[i]->granted) < lookup.waiters.size()) {
      joined = queue_.TakeUser(lookup.user);
    }
    lookup.waiters.insert(lookup.waiters.end(), joined.begin(), joined.end());
  }

  // A lookup of many requests is answered after those of few: its answers take a while to write.
  std::vector<size_t> order(lists.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return batch.lookups[a].waiters.size() < batch.lookups[b].waiters.size();
  });
  for (const size_t i : order) {
    const KeyList* const list = lists[i];
    answered_(batch.lookups[i].waiters,
              {.list = list,
               .key_at = [this, list](size_t key) { return lists_.Key(*list, key); },
               .sent_at = batch.sent_at});
  }
}

// Finds each lookup's list by its user; null: no live session. False when a list's user is not in
// the batch or has two lists: then this is not our statement's result.
bool LookupBatcher::MatchLists(const Batch& batch, std::vector<const KeyList*>& lists) const {
  const std::vector<Lookup>& lookups = batch.lookups;
  for (const KeyList& list : lists_.lists()) {
    const auto lookup =
        std::lower_bound(lookups.begin(), lookups.end(), list.user,
                         [](const Lookup& one, const Uuid& user) { return one.user < user; });
    if (lookup == lookups.end() || lookup->user != list.user) return false;
    const KeyList*& found = lists[static_cast<size_t>(lookup - lookups.begin())];
    if (found != nullptr) return false;
    found = &list;
  }
  return true;
}

void LookupBatcher::HandleError(const Result& result, Clock::time_point now) {
  assert(in_flight_ && !in_flight_->lookups.empty());
  const std::string sqlstate = result.sqlstate();
  const ErrorPolicy& policy = PolicyFor(sqlstate);
  // Disconnect also handles the batch in flight.
  if (policy.action == Action::kReconnect) return Disconnect(result.Message(), sqlstate, now);
  const bool was_alone = in_flight_->lookups.front().alone;
  const bool was_batch = in_flight_->lookups.size() > 1;
  const bool used_up_its_time = now - in_flight_->sent_at >= options_.deadline * 8 / 10;
  const bool may_help =
      policy.action == Action::kReprepare ||
      (policy.action == Action::kRetry && !(sqlstate == kQueryCanceled && used_up_its_time)) ||
      (policy.action == Action::kSplitBatch &&
       (was_batch || (sqlstate == kLockNotAvailable && !was_alone)));
  std::vector<Lookup> lookups = TakeUnanswered();
  if (sqlstate == kLockNotAvailable && was_alone && !lookups.empty()) {
    // Other lookups of this user would fail in the same way.
    std::vector<Waiter>& waiters = lookups.front().waiters;
    const std::vector<Waiter> others = queue_.TakeUser(lookups.front().user);
    waiters.insert(waiters.end(), others.begin(), others.end());
  }
  if (!may_help) {
    for (const Lookup& lookup : lookups) Fail(lookup.waiters, policy.fault, sqlstate);
    return;
  }
  for (Lookup& lookup : lookups) {
    if (policy.may_be_lookup) ++lookup.failures;
    lookup.alone = policy.action != Action::kReprepare;
  }
  if (const size_t retried = RetryOrFail(std::move(lookups), policy.fault, sqlstate, now)) {
    Log(Level::kInfo, "batch_retried",
        {{"sqlstate", sqlstate}, {"lookups", static_cast<int64_t>(retried)}});
  }
  if (policy.action == Action::kReprepare) {
    Log(Level::kInfo, "statement_prepared_again", {{"sqlstate", sqlstate}});
    state_ = State::kPreparing;
    give_up_at_ = now + kConnectTimeout;
    if (!connection_->Prepare(++statement_, options_.sql)) DisconnectWithLibpqError(now);
  }
}

void LookupBatcher::Fail(std::span<const Waiter> waiters, DatabaseFault fault,
                         std::string_view sqlstate) {
  if (!waiters.empty()) answered_(waiters, {.fault = fault, .sqlstate = sqlstate});
}

// --- time ----------------------------------------------------------------------------------------

void LookupBatcher::TimeOutInFlight(Clock::time_point now) {
  in_flight_->deadline = Clock::time_point::max();
  for (Lookup& lookup : in_flight_->lookups) {
    for (Waiter& waiter : lookup.waiters) {
      if (waiter.gone) continue;
      if (waiter.deadline > now) {
        in_flight_->deadline = std::min(in_flight_->deadline, waiter.deadline);
        continue;
      }
      Fail({&waiter, 1}, DatabaseFault::kTimeout, {});
      waiter.gone = true;
    }
  }
}

bool LookupBatcher::IsStalled(Clock::time_point now) const {
  return state_ == State::kReady && in_flight_ && last_progress_ + options_.deadline <= now;
}

bool LookupBatcher::circuit_is_open(Clock::time_point now) const {
  return state_ != State::kReady && reconnect_.CircuitIsOpen(now);
}

void LookupBatcher::OnTimeWhileConnecting(Clock::time_point now) {
  for (size_t host = 0; host < attempts_.size(); ++host) {
    if (attempts_[host].connection && attempts_[host].give_up_at <= now) {
      FailAttempt(host, "connecting timed out", {}, now);
    }
  }
  if (reconnect_.retry_at() <= now) Connect(now);
}

void LookupBatcher::OnTime(Clock::time_point now) {
  if (queue_.NextDeadline() <= now) {
    Fail(queue_.TakeExpired(now), DatabaseFault::kTimeout, {});
  }
  if (in_flight_ && in_flight_->deadline <= now) TimeOutInFlight(now);
  if (state_ == State::kConnecting) {
    OnTimeWhileConnecting(now);
  } else if (state_ == State::kPreparing && give_up_at_ <= now) {
    Disconnect("preparing the statement timed out", {}, now);
  } else if (IsStalled(now)) {
    // statement_timeout is shorter than the deadline, so a live server would have answered by now.
    Disconnect("the server is silent", {}, now);
  }
  if (circuit_is_open(now) && !queue_.empty()) {
    Fail(queue_.TakeAll(), DatabaseFault::kUnavailable, {});
  }
}

void LookupBatcher::OnSiblingConnected(Clock::time_point now) {
  if (state_ == State::kConnecting) reconnect_.OnSiblingConnected(now);
}

Clock::time_point LookupBatcher::NextTime() const {
  Clock::time_point next = queue_.NextDeadline();
  if (in_flight_) next = std::min({next, in_flight_->deadline, last_progress_ + options_.deadline});
  if (state_ != State::kReady && !queue_.empty()) {
    next = std::min(next, reconnect_.circuit_opens_at());
  }
  if (state_ == State::kPreparing) return std::min(next, give_up_at_);
  if (state_ != State::kConnecting) return next;
  for (const Attempt& attempt : attempts_) {
    next = std::min(next, attempt.connection ? attempt.give_up_at : reconnect_.retry_at());
  }
  return next;
}

}  // namespace keys
