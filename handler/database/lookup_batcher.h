// Sends the waiting lookups to PostgreSQL, in batches over one connection, and answers each request
// exactly once.
//
//   kConnecting ──> kPreparing ──> kReady ──> (lost) ──> kConnecting
//        │  ^            │            │ statement gone (26000, 0A000)
//        └──┘ failed     └─ failed    └──> kPreparing
//
//   kConnecting  attempts_ to all hosts side by side, or a pause. The first writable server wins.
//                Lookups wait until reconnect_policy.h says that the circuit is open.
//   kPreparing   connection_ has no statement yet; nothing is in flight.
//   kReady       connection_ has it; in_flight_ is the batch that was sent, at most one.
//
// Batching   Lookups that arrive while a batch is in flight, or while its results are handled, are
//            the next batch: one per user, at most kMaxBatch, fewer while results are large.
//            Of a batch's lookups, those of the fewest requests are answered first.
// Joining    One lookup answers every request of its session. When it finds no session, or finds
//            the user over the limit, it also answers the requests that arrived meanwhile, unless
//            it was sent longer than kRefusalValidFor ago.
// Retries    error_policy.h. A lookup is retried while its requests' deadlines allow, but only once
//            after an error that it may have caused. A request is never sent past its deadline. If
//            the transaction had committed when the connection broke, the retry counts it again.
// Poison     A lookup that ends the connection even when it is sent alone fails, and does not count
//            as an outage: nobody else is refused for it.
// Timeouts   statement_timeout is 9/10 of the deadline. lock_timeout is 1/16 of it for a batch,
//            because a batch that waits for one user's row lock holds those of its other users, and
//            1/4 for a lookup sent alone. When that fails, all waiting lookups of the user fail. A
//            server that answers nothing for a whole deadline is frozen or unreachable: the batcher
//            disconnects.
//
// Nothing here blocks, except libpq when it resolves a host name (pg_connection.h). Errors: none
// are thrown after the constructor, which throws std::runtime_error for a URL that libpq cannot
// parse. Thread rule: one thread. The callback must not call the batcher.
#ifndef HANDLER_DATABASE_LOOKUP_BATCHER_H_
#define HANDLER_DATABASE_LOOKUP_BATCHER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "handler/base/clock.h"
#include "handler/base/uuid.h"
#include "handler/database/conninfo.h"
#include "handler/database/error_policy.h"
#include "handler/database/key_list.h"
#include "handler/database/lookup_queue.h"
#include "handler/database/pg_connection.h"
#include "handler/database/reconnect_policy.h"

namespace keys {

// What a lookup found. Valid during the callback.
struct LookupResult {
  DatabaseFault fault = DatabaseFault::kNone;
  std::string_view sqlstate = {};  // of a fault; empty when PostgreSQL said none
  const KeyList* list = nullptr;   // null: a fault, or the session is not live
  KeyAt key_at = {};               // of `list`
  Clock::time_point sent_at{};     // what was found is not older than this
};

class LookupBatcher {
 public:
  static constexpr std::chrono::milliseconds kConnectTimeout{2000};  // per host
  static constexpr size_t kMaxBatch = 64;                            // lookups of one statement
  static constexpr size_t kMaxWaiting = 4096;  // requests; beyond, they are refused
  // For so long after a lookup was sent, a refusal that it found also answers later requests.
  static constexpr std::chrono::seconds kRefusalValidFor{1};

  // Answers the requests that wait for one lookup. The first `result.list->granted` of them are
  // granted, in this order, including those that are `gone`: they are counted, but need no answer.
  using Answered = std::function<void(std::span<const Waiter> waiters, const LookupResult& result)>;

  struct Options {
    std::string url;
    std::string sql;  // the statement of key_list.h
    std::chrono::milliseconds deadline{2000};
    int epoll = -1;  // the sockets' events are registered here, under `tag`; outlives this
    uint64_t tag = 0;
    uint32_t seed = 0;  // of the jitter of pauses
  };
  struct Stats {
    int64_t connects = 0;    // connections that became ready
    int64_t statements = 0;  // batches sent
    int64_t lookups = 0;     // sent in them, retries included
    int64_t retries = 0;     // lookups that were put back
    int64_t poison = 0;
    bool operator==(const Stats&) const = default;
  };

  LookupBatcher(Options options, Answered answered, Clock::time_point now);
  LookupBatcher(const LookupBatcher&) = delete;
  LookupBatcher& operator=(const LookupBatcher&) = delete;

  // Queues a request for Send. Calls `answered` exactly once for each request that is not
  // cancelled, possibly before this returns.
  void Submit(uint64_t request, const Uuid& user, const Uuid& session, Clock::time_point now);

  // The client is gone: a request that waits is not sent, and one that was sent is not answered.
  void Cancel(uint64_t request);

  // A socket is ready.
  void OnEvent(Clock::time_point now);
  // Call both once per turn of the event loop: OnTime handles deadlines and timeouts, Send sends
  // the next batch.
  void OnTime(Clock::time_point now);
  void Send(Clock::time_point now);
  // When OnTime must be called next.
  Clock::time_point NextTime() const;

  // Another process has connected: tries to connect now.
  void OnSiblingConnected(Clock::time_point now);

  bool connected() const { return state_ == State::kReady; }
  bool circuit_is_open(Clock::time_point now) const;
  const Stats& stats() const { return stats_; }
  const LookupQueue& queue() const { return queue_; }

 private:
  enum class State { kConnecting, kPreparing, kReady };
  // An attempt to connect to one host: libpq connects, then PgConnection::Configure sets up the
  // session and asks what the server is.
  struct Attempt {
    std::unique_ptr<PgConnection> connection;  // null: none is under way
    bool is_configuring = false;
    Clock::time_point give_up_at{};
  };
  struct Batch {
    std::vector<Lookup> lookups;  // by user
    Clock::time_point sent_at{};
    Clock::time_point deadline = Clock::time_point::max();  // of its most urgent request
  };

  void Connect(Clock::time_point now);
  void Advance(size_t host, Clock::time_point now);
  static std::string_view ObstacleTo(const Result& configured);
  void FailAttempt(size_t host, std::string_view reason, std::string_view sqlstate,
                   Clock::time_point now);
  void Prepare(size_t host, Clock::time_point now);
  void HandlePrepared(const Result& result, Clock::time_point now);

  void Disconnect(std::string_view reason, std::string_view sqlstate, Clock::time_point now);
  void DisconnectWithLibpqError(Clock::time_point now);
  std::vector<Lookup> TakeUnanswered();
  void RecordLoss(bool is_lookups_fault, Clock::time_point since, Clock::time_point now);
  size_t RetryOrFail(std::vector<Lookup> lookups, DatabaseFault fault, std::string_view sqlstate,
                     Clock::time_point now);

  void HandleResults(Clock::time_point now);
  void HandleRows(const Result& result, Clock::time_point now);
  bool MatchLists(const Batch& batch, std::vector<const KeyList*>& lists) const;
  void AdaptBatchSize(const Result& result, size_t lookups);
  void HandleError(const Result& result, Clock::time_point now);
  void TimeOutInFlight(Clock::time_point now);
  void OnTimeWhileConnecting(Clock::time_point now);
  void Fail(std::span<const Waiter> waiters, DatabaseFault fault, std::string_view sqlstate);
  bool IsStalled(Clock::time_point now) const;

  Options options_;
  Conninfo conninfo_;
  Answered answered_;
  ReconnectPolicy reconnect_;
  LookupQueue queue_;

  State state_ = State::kConnecting;
  std::vector<Attempt> attempts_;             // kConnecting: one per host
  std::unique_ptr<PgConnection> connection_;  // kPreparing, kReady
  std::optional<Batch> in_flight_;            // kReady
  size_t max_batch_ = kMaxBatch;              // fewer while the results are large
  int statement_ = 0;                         // number of the newest preparation
  bool has_answered_ = false;                 // a lookup, on this connection
  std::optional<Uuid> poison_user_;           // the first one since a lookup was answered
  bool is_new_ = false;                       // kPreparing: the connection, not just the statement
  bool was_connected_ = false;                // logged since the last loss
  Clock::time_point give_up_at_{};            // kPreparing: when the preparation has failed
  Clock::time_point ready_at_{};              // kReady: since then
  Clock::time_point last_progress_{};         // kPreparing, kReady
  KeyLists lists_;                            // of the last result
  Stats stats_;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_LOOKUP_BATCHER_H_
