// What is remembered of connections that fail, and what follows from it: which host's turn it is,
// when to try, whether lookups still wait for a connection, what is worth a line in the log.
//
// After a loss the same host is tried at once, then the next ones; after each round of failures
// comes a pause, jittered, exponential from 50 ms to 1 s. Lookups wait through the first round,
// no longer than `patience`; then the circuit is open and they are refused at once. The failures
// count until a lookup is answered, so a server that lets us in and then fails is not asked more
// often than one that does not.
//
// Pure arithmetic: no socket, no clock. Thread rule: one thread.
#ifndef HANDLER_DATABASE_RECONNECT_POLICY_H_
#define HANDLER_DATABASE_RECONNECT_POLICY_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <random>

namespace keys {

class ReconnectPolicy {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kFirstPause{50};
  static constexpr std::chrono::milliseconds kMaxPause{1000};

  ReconnectPolicy(size_t hosts, std::chrono::milliseconds patience, Clock::time_point now);

  size_t host() const { return host_; }
  Clock::time_point retry_at() const { return retry_at_; }
  // How many connections, attempted or made, have failed since a lookup was answered.
  size_t failures() const { return failures_; }
  // While there is no connection: whether to refuse lookups.
  bool CircuitIsOpen(Clock::time_point now) const;

  // A connection that had answered lookups is over, and was of no use since then. `leave`: the
  // same host would be of no use either.
  void OnLost(Clock::time_point since, Clock::time_point now, bool leave);
  // An attempt has failed, or a connection before it had answered anything.
  void OnConnectFailed(Clock::time_point now);
  // A lookup was answered: the outage, if there was one, is over.
  void OnSuccess();

  // Each kind of event is news once an outage; a first connection is, too.
  enum class Event { kLost, kUnreachable, kConnected };
  bool ShouldLog(Event event);

 private:
  size_t hosts_;
  std::chrono::milliseconds patience_;
  size_t host_ = 0;
  size_t failures_ = 0;
  bool in_outage_ = true;
  Clock::time_point since_;
  Clock::time_point retry_at_;
  std::array<bool, 3> logged_{};  // by Event
  std::minstd_rand random_;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_RECONNECT_POLICY_H_
