// The lookups of a process and its connection to PostgreSQL.
//
// One prepared statement is asked for many lookups at once: what has come while the server was at
// work goes to it together, as one statement and one transaction, since most of a statement's cost
// is its start and its commit. The statement takes two arrays of uuids, the first of which are
// distinct and ascending, and has at most one row for each, whose first column is the first uuid.
// Lookups about one user follow each other. Nothing here blocks.
//
// What is done about an error: the table in sqlstate.h. An error fails all that was asked together;
// where it can be one lookup's fault, the end of the connection included, each is asked again by
// itself. A row lock is waited for a sixteenth of the deadline, as those asked together hold each
// other's counts meanwhile, and then a quarter of it by each itself; whoever asks for the same user
// as one that waited alone in vain is answered with it. A server that completes no answer for a
// deadline's time is frozen or unreachable: the connection is given up.
//
// A lookup is asked again only within its deadline. One whose transaction had committed when the
// connection broke, before its answer arrived, is counted twice then; nobody can know.
//
// Connecting: asynchronously, each attempt within kConnectTimeout; reconnect_policy.h tells when
// and where.
//
// Errors: none are thrown after the constructor, which throws std::runtime_error for a URL that
// libpq cannot parse. Thread rule: one thread. The callback calls nothing here; whoever wants to
// ask again does so after it.
#ifndef HANDLER_DATABASE_LOOKUP_BATCHER_H_
#define HANDLER_DATABASE_LOOKUP_BATCHER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "handler/base/uuid.h"
#include "handler/database/conninfo.h"
#include "handler/database/error_policy.h"
#include "handler/database/lookup_queue.h"
#include "handler/database/pg_connection.h"
#include "handler/database/reconnect_policy.h"

namespace keys {

class LookupBatcher {
 public:
  static constexpr std::chrono::milliseconds kConnectTimeout{2000};
  static constexpr size_t kMaxBatch = 64;    // lookups of one statement
  static constexpr size_t kMaxInFlight = 1;  // statements; what waits here can still be withdrawn

  // `row` is null when there is a fault, or no row for the lookup; it is valid during the call.
  // `sqlstate` is empty when PostgreSQL said none.
  using Answered = std::function<void(uint64_t ticket, const Row* row, DatabaseFault fault,
                                      std::string_view sqlstate)>;

  // Events of the socket are registered with `epoll` under `tag`; both outlive this.
  LookupBatcher(const std::string& url, std::string sql, std::chrono::milliseconds deadline,
                int epoll, uint64_t tag, Answered answered);
  LookupBatcher(const LookupBatcher&) = delete;
  LookupBatcher& operator=(const LookupBatcher&) = delete;

  // Takes a lookup, for Send. `answered` is called exactly once for each ticket that is not
  // cancelled, possibly before this returns.
  void Submit(uint64_t ticket, const Uuid& user, const Uuid& session, Clock::time_point now);

  // Whoever asked is gone: a lookup not sent yet is not sent, and the answer goes nowhere.
  void Cancel(uint64_t ticket);

  // The socket is ready.
  void OnEvent(Clock::time_point now);
  // Time has passed, and lookups may have come: call both once a turn.
  void OnTime(Clock::time_point now);
  void Send(Clock::time_point now);
  // When OnTime has something to do next that cannot wait for a second.
  Clock::time_point NextTime() const;

  bool connected() const { return state_ == State::kReady; }
  int64_t reconnects() const { return reconnects_; }

 private:
  enum class State { kWaiting, kConnecting, kPreparing, kReady };
  // What was sent up to a Sync: one statement, or a part of the preparation (no lookups).
  struct Batch {
    std::vector<Lookup> lookups;                            // by user
    Clock::time_point deadline = Clock::time_point::max();  // the first of theirs
    int statement = 0;                                      // which preparation it was sent against
  };

  void Connect(Clock::time_point now);
  void ContinueConnecting(Clock::time_point now);
  bool SendPrepare();
  void Prepared(const Batch& batch, const Answer& answer, Clock::time_point now);
  void Disconnect(std::string_view reason, std::string_view sqlstate, Clock::time_point now);
  void DisconnectWithLibpqError(Clock::time_point now);
  bool SendBatch(Clock::time_point now);
  void HandleResults(Clock::time_point now);
  void HandleRows(const Batch& batch, const Answer& answer, Clock::time_point now);
  void HandleError(Batch& batch, const Answer& answer, Clock::time_point now);
  void Fail(const Lookup& lookup, DatabaseFault fault, std::string_view sqlstate);
  void FailQueuedIf(const std::function<bool(const Lookup&)>& whose, DatabaseFault fault,
                    std::string_view sqlstate);
  void TimeOut(Batch& batch, Clock::time_point now);
  bool IsStalled(Clock::time_point now) const;

  Conninfo conninfo_;
  std::string sql_;
  std::chrono::milliseconds deadline_;
  int epoll_;
  uint64_t tag_;
  Answered answered_;
  ReconnectPolicy reconnect_;

  std::optional<PgConnection> connection_;  // not in kWaiting
  State state_ = State::kWaiting;
  std::deque<Batch> in_flight_;
  LookupQueue waiting_;
  size_t max_batch_ = kMaxBatch;    // fewer while the answers are long
  int statement_ = 0;               // number of the newest preparation
  bool has_answered_ = false;       // this connection, since it is ready
  bool poison_seen_ = false;        // a lookup, for the end of a connection, since one was answered
  Clock::time_point give_up_at_{};  // kConnecting, kPreparing: when this attempt has failed
  Clock::time_point ready_at_{};    // kReady: since then
  Clock::time_point renew_at_{};    // kReady: when to replace the connection
  Clock::time_point last_progress_{};
  int64_t reconnects_ = 0;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_LOOKUP_BATCHER_H_
