// When to connect, whether lookups wait for a connection, and which failures to log.
//
// An outage begins when a connection is lost and ends when a lookup has been answered. Lookups wait
// for a connection while the outage is shorter than `patience`; then the circuit is open and they
// are refused at once. Attempts never stop: the first follows a loss at once, the next ones follow
// pauses of 10, 20, 50 and then always 100 ms. Jitter shortens each pause by up to a half, so that
// processes do not connect all at once. After a refused login (SQLSTATE class 28) the pause is 5 s
// and doubles each time up to a minute, because servers ban clients that insist.
//
// Pure arithmetic: no socket, no clock. Thread rule: one thread.
#ifndef HANDLER_DATABASE_RECONNECT_POLICY_H_
#define HANDLER_DATABASE_RECONNECT_POLICY_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "handler/base/clock.h"

namespace keys {

class ReconnectPolicy {
 public:
  static constexpr std::array<std::chrono::milliseconds, 4> kPauses = {
      std::chrono::milliseconds(10), std::chrono::milliseconds(20), std::chrono::milliseconds(50),
      std::chrono::milliseconds(100)};
  static constexpr std::chrono::seconds kFirstLoginPause{5};
  static constexpr std::chrono::seconds kMaxLoginPause{60};
  static constexpr size_t kMaxReasons = 16;  // logged per outage

  // The process starts in an outage. `seed` is for the jitter.
  ReconnectPolicy(std::chrono::milliseconds patience, Clock::time_point now, uint32_t seed);

  // When to make the next attempt.
  Clock::time_point retry_at() const { return retry_at_; }
  // How many attempts have failed since a lookup was answered.
  int64_t failures() const { return failures_; }
  // Whether lookups are refused while there is no connection, and when that begins; max() outside
  // an outage.
  bool CircuitIsOpen(Clock::time_point now) const { return circuit_opens_at() <= now; }
  Clock::time_point circuit_opens_at() const;

  // A working connection is lost; it has been useless since `since`.
  void OnLost(Clock::time_point since, Clock::time_point now);
  // An attempt has failed, or a connection has ended soon, without an answer.
  void OnConnectFailed(std::string_view sqlstate, Clock::time_point now);
  // A lookup was answered: the outage, if there was one, is over.
  void OnSuccess();
  // Another process has connected: make the next attempt now.
  void OnSiblingConnected(Clock::time_point now);

  // Whether to log this reason of a failure: it is new in this outage, and not over kMaxReasons.
  bool ShouldLog(std::string_view reason);

 private:
  std::chrono::milliseconds patience_;
  int64_t failures_ = 0;
  int64_t refused_logins_ = 0;
  bool in_outage_ = true;
  Clock::time_point since_;
  Clock::time_point retry_at_;
  std::vector<std::string> logged_;
  std::minstd_rand random_;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_RECONNECT_POLICY_H_
