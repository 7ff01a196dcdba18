// The clock by which waiting is measured: it never goes back. Wall-clock time is auth/jwt.h's
// UnixTime (a token's) or database/key_list.h's DatabaseTime (PostgreSQL's).
#ifndef HANDLER_BASE_CLOCK_H_
#define HANDLER_BASE_CLOCK_H_

#include <chrono>

namespace keys {

using Clock = std::chrono::steady_clock;

}  // namespace keys

#endif  // HANDLER_BASE_CLOCK_H_
