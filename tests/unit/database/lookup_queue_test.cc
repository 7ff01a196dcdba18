#include "handler/database/lookup_queue.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

Uuid Id(int number) {
  Uuid uuid;
  uuid.bytes[8] = static_cast<unsigned char>(number >> 8);
  uuid.bytes[15] = static_cast<unsigned char>(number);
  return uuid;
}

Clock::time_point At(uint64_t seconds) {
  return Clock::time_point(std::chrono::seconds(seconds));
}

// A request of the user and the session of those letters; its deadline is its number.
struct Arrival {
  char user;
  char session;
  uint64_t request;
};

void Push(LookupQueue& queue, const Arrival& arrival) {
  queue.Push(Id(arrival.user), Id(arrival.session),
             {.request = arrival.request, .deadline = At(arrival.request)});
}

// "ax12 by3": users, sessions and requests.
std::string Text(const std::vector<Lookup>& lookups) {
  std::string text;
  for (const Lookup& lookup : lookups) {
    if (!text.empty()) text += ' ';
    text += static_cast<char>(lookup.user.bytes[15]);
    text += static_cast<char>(lookup.session.bytes[15]);
    for (const Waiter& waiter : lookup.waiters) text += std::to_string(waiter.request);
  }
  return text;
}

std::string Requests(const std::vector<Waiter>& waiters) {
  std::string text;
  for (const Waiter& waiter : waiters) text += std::to_string(waiter.request);
  return text;
}

TEST_CASE("a batch is one lookup per user, joined by the requests of its session, users in turn") {
  const struct {
    const char* what;
    std::vector<Arrival> arrivals;
    size_t most;
    std::vector<std::string> batches;
  } rows[] = {
      {"nobody", {}, 64, {""}},
      {"one", {{'a', 'x', 1}}, 64, {"ax1", ""}},
      {"in the order of the users",
       {{'c', 'x', 1}, {'a', 'x', 2}, {'b', 'x', 3}},
       64,
       {"ax2 bx3 cx1", ""}},
      {"no more than allowed, the longest waiting first",
       {{'c', 'x', 1}, {'a', 'x', 2}, {'b', 'x', 3}},
       2,
       {"ax2 cx1", "bx3"}},
      {"requests of one session join",
       {{'a', 'x', 1}, {'a', 'x', 2}, {'b', 'x', 3}, {'a', 'x', 4}},
       64,
       {"ax124 bx3", ""}},
      {"two sessions of one user are two lookups in two batches",
       {{'a', 'x', 1}, {'a', 'y', 2}, {'b', 'x', 3}, {'a', 'y', 4}},
       64,
       {"ax1 bx3", "ay24", ""}},
      {"a user who was taken and has more goes behind the others",
       {{'a', 'x', 1}, {'a', 'y', 2}, {'b', 'x', 3}, {'c', 'x', 4}},
       1,
       {"ax1", "bx3", "cx4", "ay2", ""}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    LookupQueue queue;
    for (const Arrival& arrival : row.arrivals) Push(queue, arrival);
    CHECK(queue.requests() == row.arrivals.size());
    for (const std::string& batch : row.batches) CHECK(Text(queue.Take(row.most)) == batch);
  }
}

TEST_CASE("lookups that are to be sent alone are sent alone") {
  LookupQueue queue;
  for (const Arrival& arrival : {Arrival{'a', 'x', 1}, {'b', 'x', 2}}) Push(queue, arrival);
  std::vector<Lookup> batch = queue.Take(64);
  for (Lookup& lookup : batch) lookup.alone = true;
  Push(queue, {'c', 'x', 3});
  queue.PutBack(std::move(batch));
  CHECK(Text(queue.Take(64)) == "ax1");
  CHECK(Text(queue.Take(64)) == "bx2");
  CHECK(Text(queue.Take(64)) == "cx3");
  CHECK(queue.empty());
}

TEST_CASE("what is put back comes first, and takes along what came for its session meanwhile") {
  LookupQueue queue;
  for (const Arrival& arrival : {Arrival{'b', 'x', 1}, {'a', 'x', 2}}) Push(queue, arrival);
  std::vector<Lookup> batch = queue.Take(64);
  for (const Arrival& arrival : {Arrival{'c', 'x', 3}, {'a', 'x', 4}, {'a', 'y', 5}}) {
    Push(queue, arrival);
  }
  queue.PutBack(std::move(batch));
  CHECK(queue.requests() == 5);
  CHECK(queue.lookups() == 4);
  CHECK(queue.NextDeadline() == At(1));
  CHECK(Text(queue.Take(2)) == "ax24 bx1");
  CHECK(Text(queue.Take(64)) == "ay5 cx3");
  CHECK(queue.empty());
}

TEST_CASE("hundreds of requests of one user delay nobody: ten others are in the first batch") {
  for (const int requests : {500, 2000}) {
    for (const bool many_sessions : {false, true}) {
      CAPTURE(requests);
      CAPTURE(many_sessions);
      LookupQueue queue;
      for (int number = 0; number < requests; ++number) {
        queue.Push(Id(1), Id(many_sessions ? number : 0), {.request = 1, .deadline = At(1)});
      }
      for (int user = 2; user < 12; ++user) {
        queue.Push(Id(user), Id(0), {.request = 2, .deadline = At(2)});
      }
      CHECK(queue.Take(64).size() == 11);
      CHECK(queue.requests() == static_cast<size_t>(many_sessions ? requests - 1 : 0));
    }
  }
}

TEST_CASE("requests are taken out by session, by user, by deadline, by number, or all") {
  struct Row {
    const char* what;
    std::string taken;
    std::function<std::vector<Waiter>(LookupQueue&)> take;
    std::string left;
  };
  const Row rows[] = {
      {"a session", "14", [](LookupQueue& q) { return q.TakeSession(Id('a'), Id('x')); },
       "ay3 bx2"},
      {"a session that is not there", "",
       [](LookupQueue& q) { return q.TakeSession(Id('b'), Id('y')); }, "ax14 bx2"},
      {"a user", "143", [](LookupQueue& q) { return q.TakeUser(Id('a')); }, "bx2"},
      {"a user who is not there", "", [](LookupQueue& q) { return q.TakeUser(Id('c')); },
       "ax14 bx2"},
      {"up to a deadline", "12", [](LookupQueue& q) { return q.TakeExpired(At(2)); }, "ax4"},
      {"all", "1432", [](LookupQueue& q) { return q.TakeAll(); }, ""},
      {"one that left", "",
       [](LookupQueue& q) {
         q.Cancel(2);
         return std::vector<Waiter>();
       },
       "ax14"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    // A queue holds iterators into itself, so each row makes its own.
    LookupQueue queue;
    for (const Arrival& arrival :
         {Arrival{'a', 'x', 1}, {'b', 'x', 2}, {'a', 'y', 3}, {'a', 'x', 4}}) {
      Push(queue, arrival);
    }
    CHECK(Requests(row.take(queue)) == row.taken);
    CHECK(Text(queue.Take(64)) == row.left);
  }
}

TEST_CASE("the next deadline is the earliest, and none when nobody waits") {
  LookupQueue queue;
  CHECK(queue.NextDeadline() == Clock::time_point::max());
  Push(queue, {'a', 'x', 7});
  Push(queue, {'b', 'x', 5});
  CHECK(queue.NextDeadline() == At(5));
  CHECK(queue.TakeExpired(At(6)).size() == 1);
  CHECK(queue.NextDeadline() == At(7));
  CHECK(queue.TakeExpired(At(7)).size() == 1);
  CHECK(queue.NextDeadline() == Clock::time_point::max());
}

}  // namespace
}  // namespace keys
