// One connection to PostgreSQL, in pipeline mode, driven by the caller's epoll; the only room that
// knows libpq.
//
// It prepares one statement and runs it for many requests at once: each is sent with its own Sync,
// so each is its own transaction and one that fails aborts no neighbour. Nothing here blocks but
// the look-up of a host's name, which libpq does not offer otherwise.
//
// What is done about an error: the table in sqlstate.h. A server that says nothing at all for a
// deadline's time is frozen or unreachable: the connection is given up.
//
// A question is asked again only within its deadline. One whose transaction had committed when the
// connection broke, before its answer arrived, is counted twice then; nobody can know.
//
// Connecting: asynchronously, host after host of the URL (each given kConnectTimeout), then waiting
// with jittered exponential backoff up to a second. While the first attempt after a loss runs,
// questions wait; once one has failed they are answered kUnavailable at once.
//
// Errors: none are thrown after the constructor, which throws std::runtime_error for a URL that
// libpq cannot parse. Thread rule: one thread. The callback calls nothing
// here; whoever wants to ask again does so after it.
#ifndef HANDLER_POSTGRES_H_
#define HANDLER_POSTGRES_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>

#include "handler/database_targets.h"
#include "handler/sqlstate.h"
#include "handler/uuid.h"

struct pg_conn;
struct pg_result;

namespace keys {

using Clock = std::chrono::steady_clock;

// The rows of an answer, in PostgreSQL's binary format; valid during the callback.
class Rows {
 public:
  explicit Rows(const pg_result* result);
  int count() const { return count_; }
  int columns() const { return columns_; }
  bool IsNull(int row, int column) const;
  std::string_view Bytes(int row, int column) const;

 private:
  const pg_result* result_;
  int count_;
  int columns_;
};

class Postgres {
 public:
  static constexpr std::chrono::milliseconds kConnectTimeout{2000};
  static constexpr size_t kMostInFlight = 64;  // more wait here, where they can still be withdrawn

  using Parameters = std::array<Uuid, 2>;
  // `rows` is null exactly when there is a fault; `sqlstate` is empty when PostgreSQL said none.
  using Answered = std::function<void(uint64_t ticket, const Rows* rows, DatabaseFault fault,
                                      std::string_view sqlstate)>;

  // `sql` takes two uuid parameters. Events of the socket are registered with `epoll` under `tag`;
  // both outlive this.
  Postgres(const std::string& url, std::string sql, std::chrono::milliseconds deadline, int epoll,
           uint64_t tag, Answered answered);
  ~Postgres();
  Postgres(const Postgres&) = delete;
  Postgres& operator=(const Postgres&) = delete;

  // Asks the statement. `answered` is called exactly once for each ticket that is not cancelled,
  // possibly before this returns.
  void Submit(uint64_t ticket, const Parameters& parameters, Clock::time_point now);

  // Whoever asked is gone: a question not sent yet is not sent, and the answer goes nowhere.
  void Cancel(uint64_t ticket);

  // The socket is ready, or time has passed: call both once a turn.
  void OnEvent(Clock::time_point now);
  void OnTime(Clock::time_point now);
  // When OnTime has something to do next.
  Clock::time_point NextTime() const;

  bool connected() const { return state_ == State::kReady; }
  int64_t reconnects() const { return reconnects_; }

 private:
  struct CloseConnection {
    void operator()(pg_conn* connection) const;
  };
  struct ClearResult {
    void operator()(pg_result* result) const;
  };
  using Result = std::unique_ptr<pg_result, ClearResult>;

  enum class State { kWaiting, kConnecting, kPreparing, kReady };
  enum class Kind { kQuestion, kPrepare };
  struct Item {
    Kind kind = Kind::kQuestion;
    uint64_t ticket = 0;
    Parameters parameters{};
    Clock::time_point deadline{};
    int times_sent = 0;
    int statement = 0;       // which preparation it was sent against
    bool abandoned = false;  // answered or cancelled: its result goes nowhere
    Result result{};
  };

  void Connect(Clock::time_point now);
  void ContinueConnecting(Clock::time_point now);
  void Lose(std::string_view reason, std::string_view sqlstate, Clock::time_point now);
  bool SendPrepare();
  bool Send(Item item, Clock::time_point now);
  void SendWaiting(Clock::time_point now);
  void ReadResults(Clock::time_point now);
  void Finish(Item item, Clock::time_point now);
  void AnswerFault(const Item& item, DatabaseFault fault, std::string_view sqlstate);
  void Watch(uint32_t events);
  std::string Message() const;

  DatabaseTargets targets_;
  std::string sql_;
  std::chrono::milliseconds deadline_;
  int epoll_;
  uint64_t tag_;
  Answered answered_;

  std::unique_ptr<pg_conn, CloseConnection> connection_;
  State state_ = State::kWaiting;
  int watched_ = -1;
  uint32_t watched_events_ = 0;
  std::deque<Item> in_flight_;
  std::deque<Item> waiting_;
  int statement_ = 0;  // number of the newest preparation on this connection
  size_t host_ = 0;    // whose turn it is
  int failures_ = 0;   // attempts that failed since a question was last answered
  bool outage_logged_ = false;
  bool failure_logged_ = false;
  Clock::time_point connect_at_{};  // kWaiting: when to try again
  Clock::time_point give_up_at_{};  // kConnecting, kPreparing: when this attempt has failed
  Clock::time_point last_progress_{};
  int64_t reconnects_ = 0;
  std::minstd_rand random_;
};

}  // namespace keys

#endif  // HANDLER_POSTGRES_H_
