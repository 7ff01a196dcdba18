#include "handler/api/rate_limit.h"

#include <doctest/doctest.h>

#include <tuple>

#include "handler/base/clock.h"

namespace keys {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

const DatabaseTime kNow = DatabaseTime(seconds(1795480000)) + microseconds(250000);

KeyList Counted(int32_t minute_count, int32_t day_count) {
  KeyList list;
  list.granted = 1;
  list.now = kNow;
  list.minute = {10, minute_count, kNow + seconds(41)};
  list.day = {1000, day_count, kNow + seconds(86000)};
  return list;
}

TEST_CASE("the headers of a request within its limits") {
  std::string headers;
  AppendRateLimitHeaders(QuotaOf(Counted(1, 1), 0), false, headers);
  CHECK(headers ==
        "X-RateLimit-Limit: 10\r\nX-RateLimit-Remaining: 9\r\nX-RateLimit-Reset: 1795480042\r\n"
        "RateLimit-Policy: \"minute\";q=10;w=60, \"day\";q=1000;w=86400\r\n"
        "RateLimit: \"minute\";r=9;t=41, \"day\";r=999;t=86000\r\n");
}

TEST_CASE("which window is told about, and what is left of it") {
  struct Row {
    int32_t minute_count;
    int32_t day_count;
    const char* window;
    int32_t remaining;
  };
  const Row rows[] = {
      {1, 1, "minute", 9},   {10, 10, "minute", 0},
      {12, 12, "minute", 0},  // the limit was lowered: never below 0
      {3, 1000, "day", 0},   {10, 1000, "day", 0},
      {3, 999, "minute", 7},
  };
  for (const Row& row : rows) {
    CAPTURE(row.minute_count);
    CAPTURE(row.day_count);
    const Quota quota = QuotaOf(Counted(row.minute_count, row.day_count), 0);
    CHECK(quota.Described().name == row.window);
    CHECK(quota.Described().remaining == row.remaining);
  }
}

TEST_CASE("of requests that were counted together each is told one less, in their order") {
  KeyList list = Counted(8, 30);
  list.granted = 3;
  for (const auto& [position, minute, day] :
       {std::tuple{0u, 4, 972}, {1u, 3, 971}, {2u, 2, 970}, {3u, 2, 970}, {999u, 2, 970}}) {
    CAPTURE(position);
    const Quota quota = QuotaOf(list, position);
    CHECK(quota.minute.remaining == minute);
    CHECK(quota.day.remaining == day);
  }
}

TEST_CASE("Retry-After is in whole seconds, rounded up, and never 0") {
  struct Row {
    int64_t microseconds_left;
    const char* header;
  };
  const Row rows[] = {
      {0, "Retry-After: 1\r\n"},         {1, "Retry-After: 1\r\n"},
      {1000000, "Retry-After: 1\r\n"},   {1000001, "Retry-After: 2\r\n"},
      {59999999, "Retry-After: 60\r\n"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.microseconds_left);
    KeyList list = Counted(10, 10);
    list.minute.ends = kNow + microseconds(row.microseconds_left);
    std::string headers;
    AppendRateLimitHeaders(QuotaOf(list, 0), true, headers);
    CHECK(headers.ends_with(row.header));
  }
}

TEST_CASE("who is over is remembered until the minute ends, by the steady clock") {
  const Uuid user{{1}};
  const Uuid other{{2}};
  const auto learned = Clock::time_point(seconds(5000));
  OverLimitCache over(64);
  CHECK_FALSE(over.Find(user, learned));
  over.Remember(user, QuotaOf(Counted(10, 10), 0), learned);
  CHECK_FALSE(over.Find(other, learned));
  CHECK(over.Find(user, learned)->minute.SecondsLeft() == 41);
  CHECK(over.Find(user, learned + seconds(40))->minute.SecondsLeft() == 1);
  CHECK(over.Find(user, learned + seconds(40))->minute.reset == 1795480042);
  CHECK_FALSE(over.Find(user, learned + seconds(41)));
}

TEST_CASE("nobody is remembered longer than a minute, whatever the database's clock says") {
  const auto learned = Clock::time_point(seconds(5000));
  KeyList list = Counted(10, 10);
  list.minute.ends = kNow + seconds(86400);
  OverLimitCache over(64);
  over.Remember(Uuid{{1}}, QuotaOf(list, 0), learned);
  CHECK(over.Find(Uuid{{1}}, learned + seconds(59)));
  CHECK_FALSE(over.Find(Uuid{{1}}, learned + seconds(60)));
}

TEST_CASE("a day that is exhausted is asked about again when the minute ends") {
  const Uuid user{{1}};
  const auto learned = Clock::time_point(seconds(5000));
  OverLimitCache over(64);
  over.Remember(user, QuotaOf(Counted(3, 1000), 0), learned);
  CHECK(over.Find(user, learned + seconds(40))->Described().name == "day");
  CHECK_FALSE(over.Find(user, learned + seconds(41)));
}

}  // namespace
}  // namespace keys
