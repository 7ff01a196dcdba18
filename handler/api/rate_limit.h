// The rate limit as the client sees it: two windows, their headers, and a cache of the users over
// the limit. sql/list_keys.sql does the counting, by the database's clock.
//
// The host's wall clock is not used: times come from the database, and the steady clock measures
// the time that passes.
// Sources: draft-ietf-httpapi-ratelimit-headers-10; RFC 9110 section 10.2.3 (Retry-After).
#ifndef HANDLER_API_RATE_LIMIT_H_
#define HANDLER_API_RATE_LIMIT_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "handler/base/bounded_cache.h"
#include "handler/base/uuid.h"
#include "handler/database/key_list.h"

namespace keys {

// What is left of a window. Trivially copyable.
struct Window {
  std::string_view name;  // "minute" or "day", a literal
  int32_t length_s = 0;
  int32_t limit = 0;
  int32_t remaining = 0;
  int64_t reset = 0;            // Unix time of its end, rounded up to a second
  int64_t microseconds = 0;     // until its end
  int64_t SecondsLeft() const;  // rounded up, at least 1
};

struct Quota {
  Window minute;
  Window day;
  // The window that X-RateLimit-* describe: the day once it is exhausted, otherwise the minute.
  const Window& Described() const { return day.remaining == 0 ? day : minute; }
};

// The quota of the request at this position, from 0, among those that the lookup answers. Each
// granted request has one less remaining than the one before it.
Quota QuotaOf(const KeyList& list, size_t position);

// Appends X-RateLimit-*, RateLimit-Policy, RateLimit and, when `over`, Retry-After.
void AppendRateLimitHeaders(const Quota& quota, bool over, std::string& headers);

// The users over the limit, and until when. Bounded: an evicted user costs one lookup.
//
// The cache keeps a user until their minute window ends, at most 60 s. So a raised limit, a changed
// tier or a used-up day is looked up again within 60 s.
class OverLimitCache {
 public:
  explicit OverLimitCache(size_t capacity = 4096) : users_(capacity) {}

  // The quota of a user who is over the limit; nullopt: look the user up.
  std::optional<Quota> Find(const Uuid& user, std::chrono::steady_clock::time_point now);

  // The database has just found `user` over the limit.
  void Remember(const Uuid& user, const Quota& quota, std::chrono::steady_clock::time_point now);

 private:
  struct Entry {
    Quota quota;
    std::chrono::steady_clock::time_point learned;
    std::chrono::steady_clock::time_point until;
  };
  BoundedCache<Uuid, Entry> users_;
};

}  // namespace keys

#endif  // HANDLER_API_RATE_LIMIT_H_
