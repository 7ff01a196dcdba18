// What is remembered of connections that fail, and what follows from it: which host's turn it is,
// when to try, whether questions still wait for a connection, what is worth a line in the log.
//
// After a loss the same host is tried at once, then the next ones; after each round of failures
// comes a pause, jittered, exponential from 50 ms to 1 s. Questions wait through the first round,
// no longer than `patience`; then the circuit is open and they are refused at once. The failures
// count until a question is answered, so a server that lets us in and then fails is not asked more
// often than one that does not.
//
// Pure arithmetic: no socket, no clock. Thread rule: one thread.
#ifndef HANDLER_OUTAGE_H_
#define HANDLER_OUTAGE_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <random>

namespace keys {

class Outage {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kFirstPause{50};
  static constexpr std::chrono::milliseconds kLongestPause{1000};

  Outage(size_t hosts, std::chrono::milliseconds patience, Clock::time_point now);

  size_t host() const { return host_; }
  Clock::time_point connect_at() const { return connect_at_; }
  // How many connections, attempted or made, have failed since a question was answered.
  size_t failures() const { return failures_; }
  // While there is no connection: whether to refuse questions.
  bool CircuitIsOpen(Clock::time_point now) const;

  // A connection that had answered questions is over, and was of no use since then. `leave`: the
  // same host would be of no use either.
  void Lost(Clock::time_point since, Clock::time_point now, bool leave);
  // An attempt has failed, or a connection before it had answered anything.
  void Failed(Clock::time_point now);
  // A question was answered: the outage, if there was one, is over.
  void Answered();

  // Each kind of event is news once an outage; a first connection is, too.
  enum class Event { kLost, kUnreachable, kConnected };
  bool IsNews(Event event);

 private:
  size_t hosts_;
  std::chrono::milliseconds patience_;
  size_t host_ = 0;
  size_t failures_ = 0;
  bool is_on_ = true;
  Clock::time_point since_;
  Clock::time_point connect_at_;
  std::array<bool, 3> told_{};  // by Event
  std::minstd_rand random_;
};

}  // namespace keys

#endif  // HANDLER_OUTAGE_H_
