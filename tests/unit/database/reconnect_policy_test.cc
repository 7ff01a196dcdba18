#include "handler/database/reconnect_policy.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 2000ms;
const Clock::time_point kStart(1000s);

TEST_CASE("lookups wait for the first connection, as long as the patience lasts") {
  ReconnectPolicy policy(kPatience, kStart, 1);
  CHECK(policy.retry_at() == kStart);
  CHECK(!policy.CircuitIsOpen(kStart + kPatience - 1ms));
  CHECK(policy.CircuitIsOpen(kStart + kPatience));
  policy.OnSuccess();
  CHECK(!policy.CircuitIsOpen(kStart + 10 * kPatience));
  CHECK(policy.circuit_opens_at() == Clock::time_point::max());
}

TEST_CASE(
    "failed attempts alone do not open the circuit: only an outage of a whole patience does") {
  ReconnectPolicy policy(kPatience, kStart, 1);
  policy.OnSuccess();
  policy.OnLost(kStart, kStart);
  CHECK(policy.retry_at() == kStart);
  for (auto now = kStart; now < kStart + kPatience; now += 10ms) {
    policy.OnConnectFailed("57P03", now);
    CHECK(!policy.CircuitIsOpen(now));
  }
  CHECK(policy.circuit_opens_at() == kStart + kPatience);
}

TEST_CASE("a server that was silent for the whole patience has used it up") {
  ReconnectPolicy policy(kPatience, kStart, 1);
  policy.OnSuccess();
  policy.OnLost(kStart, kStart + kPatience);
  CHECK(policy.CircuitIsOpen(kStart + kPatience));
}

TEST_CASE("pauses grow to 100 ms and no further, and up to half of each is taken off at random") {
  bool differs = false;
  Clock::duration first{};
  for (uint32_t seed = 0; seed < 50; ++seed) {
    ReconnectPolicy policy(kPatience, kStart, seed);
    for (const auto pause : {10ms, 20ms, 50ms, 100ms, 100ms, 100ms}) {
      policy.OnConnectFailed("", kStart);
      CHECK(policy.retry_at() - kStart > pause / 2 - 1ms);
      CHECK(policy.retry_at() - kStart <= pause);
    }
    if (seed == 0) first = policy.retry_at() - kStart;
    differs = differs || policy.retry_at() - kStart != first;
    CHECK(policy.failures() == 6);
    policy.OnSuccess();
    policy.OnConnectFailed("", kStart);
    CHECK(policy.retry_at() - kStart <= 10ms);
  }
  CHECK(differs);
}

TEST_CASE("a refused login is tried again after 5 s, then ever later, up to a minute") {
  for (const char* const sqlstate : {"28P01", "28000"}) {
    CAPTURE(sqlstate);
    ReconnectPolicy policy(kPatience, kStart, 3);
    for (const auto pause : {5s, 10s, 20s, 40s, 60s, 60s}) {
      policy.OnConnectFailed(sqlstate, kStart);
      CHECK(policy.retry_at() - kStart > pause / 2 - 1ms);
      CHECK(policy.retry_at() - kStart <= pause);
    }
    policy.OnSiblingConnected(kStart + 1ms);
    CHECK(policy.retry_at() == kStart + 1ms);
  }
}

TEST_CASE("each reason is logged once per outage, and no more than a few") {
  ReconnectPolicy policy(kPatience, kStart, 1);
  CHECK(policy.ShouldLog("refused"));
  CHECK(!policy.ShouldLog("refused"));
  CHECK(policy.ShouldLog("starting up"));
  policy.OnSuccess();
  CHECK(policy.ShouldLog("refused"));
  size_t logged = 1;
  for (int reason = 0; reason < 100; ++reason) logged += policy.ShouldLog(std::to_string(reason));
  CHECK(logged == ReconnectPolicy::kMaxReasons);
}

}  // namespace
}  // namespace keys
