#include "handler/outage.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

using namespace std::chrono_literals;
using Event = Outage::Event;

constexpr auto kPatience = 2000ms;
const Outage::Clock::time_point kStart(1000s);

TEST_CASE("questions wait for the first connection, as long as the patience lasts") {
  Outage outage(1, kPatience, kStart);
  CHECK(!outage.CircuitIsOpen(kStart));
  CHECK(!outage.CircuitIsOpen(kStart + kPatience - 1ms));
  CHECK(outage.CircuitIsOpen(kStart + kPatience));
  outage.Answered();
  CHECK(!outage.CircuitIsOpen(kStart + 10 * kPatience));
}

TEST_CASE("a lost host is tried again at once, then each other one, then there is a pause") {
  Outage outage(3, kPatience, kStart);
  outage.Answered();
  outage.Lost(kStart, kStart, false);
  CHECK(outage.host() == 0);
  CHECK(outage.connect_at() == kStart);
  for (const size_t host : {1u, 2u}) {
    outage.Failed(kStart + 5ms);
    CHECK(outage.host() == host);
    CHECK(outage.connect_at() == kStart + 5ms);
    CHECK(!outage.CircuitIsOpen(kStart + 5ms));
  }
  outage.Failed(kStart + 10ms);
  CHECK(outage.host() == 0);
  CHECK(outage.connect_at() >= kStart + 10ms + Outage::kFirstPause / 2);
  CHECK(outage.connect_at() <= kStart + 10ms + Outage::kFirstPause);
  CHECK(outage.CircuitIsOpen(kStart + 10ms));
}

TEST_CASE("a host that is of no use is left, and a silent one has used up the patience") {
  Outage outage(2, kPatience, kStart);
  outage.Answered();
  outage.Lost(kStart, kStart + kPatience, true);
  CHECK(outage.host() == 1);
  CHECK(outage.CircuitIsOpen(kStart + kPatience));
}

TEST_CASE("pauses double up to the longest, between half of it and all, not always the same") {
  Outage outage(1, kPatience, kStart);
  auto longest = Outage::kFirstPause;
  Outage::Clock::duration last{};
  bool differ = false;
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    outage.Failed(kStart);
    const auto pause = outage.connect_at() - kStart;
    CHECK(pause >= longest / 2);
    CHECK(pause <= longest);
    differ = differ || (round > 10 && pause != last);
    last = pause;
    longest = std::min(longest * 2, Outage::kLongestPause);
  }
  CHECK(differ);
}

TEST_CASE("failures count until a question is answered, not until a connection is made") {
  Outage outage(1, kPatience, kStart);
  outage.Failed(kStart);
  outage.Failed(kStart);
  CHECK(outage.IsNews(Event::kConnected));  // it let us in
  CHECK(outage.failures() == 2);
  outage.Answered();
  CHECK(outage.failures() == 0);
}

TEST_CASE("each event is news once an outage") {
  Outage outage(1, kPatience, kStart);
  CHECK(outage.IsNews(Event::kConnected));
  outage.Answered();
  CHECK(!outage.IsNews(Event::kConnected));  // a connection that was only renewed
  for (int times = 0; times < 2; ++times) {
    CAPTURE(times);
    outage.Lost(kStart, kStart, false);
    CHECK(outage.IsNews(Event::kLost));
    for (int attempts = 0; attempts < 3; ++attempts) {
      outage.Failed(kStart);
      CHECK(outage.IsNews(Event::kUnreachable) == (attempts == 0));
    }
    CHECK(outage.IsNews(Event::kConnected));
    CHECK(!outage.IsNews(Event::kConnected));
    CHECK(!outage.IsNews(Event::kLost));
    outage.Answered();
  }
}

TEST_CASE("an attempt that fails without a loss before it begins an outage") {
  Outage outage(2, kPatience, kStart);
  outage.Answered();
  outage.Failed(kStart + 100s);
  CHECK(!outage.CircuitIsOpen(kStart + 100s));
  CHECK(outage.IsNews(Event::kUnreachable));
}

}  // namespace
}  // namespace keys
