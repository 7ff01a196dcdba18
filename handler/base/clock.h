// The clock by which waiting is measured: it never goes back. Wall-clock time is auth/jwt.h's
// UnixTime (a token's) or database/key_list.h's DatabaseTime (PostgreSQL's).
#ifndef HANDLER_BASE_CLOCK_H_
#define HANDLER_BASE_CLOCK_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace keys {

using Clock = std::chrono::steady_clock;

inline int64_t Microseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

// Milliseconds for epoll_wait(2), a second at most, rounded up so that the moment has come when it
// returns.
inline int MillisecondsUntil(Clock::time_point moment) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(moment - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
}

}  // namespace keys

#endif  // HANDLER_BASE_CLOCK_H_
