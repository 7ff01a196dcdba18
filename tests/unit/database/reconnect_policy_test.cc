#include "handler/database/reconnect_policy.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

using namespace std::chrono_literals;
using Event = ReconnectPolicy::Event;

constexpr auto kPatience = 2000ms;
const ReconnectPolicy::Clock::time_point kStart(1000s);

TEST_CASE("lookups wait for the first connection, as long as the patience lasts") {
  ReconnectPolicy outage(1, kPatience, kStart);
  CHECK(!outage.CircuitIsOpen(kStart));
  CHECK(!outage.CircuitIsOpen(kStart + kPatience - 1ms));
  CHECK(outage.CircuitIsOpen(kStart + kPatience));
  outage.OnSuccess();
  CHECK(!outage.CircuitIsOpen(kStart + 10 * kPatience));
}

TEST_CASE("a lost host is tried again at once, then each other one, then there is a pause") {
  ReconnectPolicy outage(3, kPatience, kStart);
  outage.OnSuccess();
  outage.OnLost(kStart, kStart, false);
  CHECK(outage.host() == 0);
  CHECK(outage.retry_at() == kStart);
  for (const size_t host : {1u, 2u}) {
    outage.OnConnectFailed(kStart + 5ms);
    CHECK(outage.host() == host);
    CHECK(outage.retry_at() == kStart + 5ms);
    CHECK(!outage.CircuitIsOpen(kStart + 5ms));
  }
  outage.OnConnectFailed(kStart + 10ms);
  CHECK(outage.host() == 0);
  CHECK(outage.retry_at() >= kStart + 10ms + ReconnectPolicy::kFirstPause / 2);
  CHECK(outage.retry_at() <= kStart + 10ms + ReconnectPolicy::kFirstPause);
  CHECK(outage.CircuitIsOpen(kStart + 10ms));
}

TEST_CASE("a host that is of no use is left, and a silent one has used up the patience") {
  ReconnectPolicy outage(2, kPatience, kStart);
  outage.OnSuccess();
  outage.OnLost(kStart, kStart + kPatience, true);
  CHECK(outage.host() == 1);
  CHECK(outage.CircuitIsOpen(kStart + kPatience));
}

TEST_CASE("pauses double up to the longest, between half of it and all, not always the same") {
  ReconnectPolicy outage(1, kPatience, kStart);
  auto longest = ReconnectPolicy::kFirstPause;
  ReconnectPolicy::Clock::duration last{};
  bool differ = false;
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    outage.OnConnectFailed(kStart);
    const auto pause = outage.retry_at() - kStart;
    CHECK(pause >= longest / 2);
    CHECK(pause <= longest);
    differ = differ || (round > 10 && pause != last);
    last = pause;
    longest = std::min(longest * 2, ReconnectPolicy::kMaxPause);
  }
  CHECK(differ);
}

TEST_CASE("failures count until a lookup is answered, not until a connection is made") {
  ReconnectPolicy outage(1, kPatience, kStart);
  outage.OnConnectFailed(kStart);
  outage.OnConnectFailed(kStart);
  CHECK(outage.ShouldLog(Event::kConnected));  // it let us in
  CHECK(outage.failures() == 2);
  outage.OnSuccess();
  CHECK(outage.failures() == 0);
}

TEST_CASE("each event is news once an outage") {
  ReconnectPolicy outage(1, kPatience, kStart);
  CHECK(outage.ShouldLog(Event::kConnected));
  outage.OnSuccess();
  CHECK(!outage.ShouldLog(Event::kConnected));  // a connection that was only renewed
  for (int times = 0; times < 2; ++times) {
    CAPTURE(times);
    outage.OnLost(kStart, kStart, false);
    CHECK(outage.ShouldLog(Event::kLost));
    for (int attempts = 0; attempts < 3; ++attempts) {
      outage.OnConnectFailed(kStart);
      CHECK(outage.ShouldLog(Event::kUnreachable) == (attempts == 0));
    }
    CHECK(outage.ShouldLog(Event::kConnected));
    CHECK(!outage.ShouldLog(Event::kConnected));
    CHECK(!outage.ShouldLog(Event::kLost));
    outage.OnSuccess();
  }
}

TEST_CASE("an attempt that fails without a loss before it begins an outage") {
  ReconnectPolicy outage(2, kPatience, kStart);
  outage.OnSuccess();
  outage.OnConnectFailed(kStart + 100s);
  CHECK(!outage.CircuitIsOpen(kStart + 100s));
  CHECK(outage.ShouldLog(Event::kUnreachable));
}

}  // namespace
}  // namespace keys
