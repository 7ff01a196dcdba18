#include "handler/database/lookup_queue.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

// A lookup of the user of that letter; the ticket tells one from another.
Lookup Ask(char user, uint64_t ticket, bool alone = false) {
  Lookup lookup;
  lookup.ticket = ticket;
  lookup.alone = alone;
  lookup.user.bytes.fill(static_cast<unsigned char>(user));
  lookup.deadline = Clock::time_point(std::chrono::seconds(ticket));
  return lookup;
}

// "a1 b2": users and tickets.
std::string Text(const std::vector<Lookup>& lookups) {
  std::string text;
  for (const Lookup& lookup : lookups) {
    if (!text.empty()) text += ' ';
    text += static_cast<char>(lookup.user.bytes[0]);
    text += std::to_string(lookup.ticket);
  }
  return text;
}

TEST_CASE("who is asked together: different users, the longest waiting, in the order of users") {
  const struct {
    const char* what;
    std::vector<Lookup> waiting;
    size_t most;
    std::vector<std::string> batches;
  } rows[] = {
      {"nobody", {}, 64, {""}},
      {"one", {Ask('a', 1)}, 64, {"a1", ""}},
      {"by user", {Ask('c', 1), Ask('a', 2), Ask('b', 3)}, 64, {"a2 b3 c1", ""}},
      {"no more than allowed", {Ask('c', 1), Ask('a', 2), Ask('b', 3)}, 2, {"a2 c1", "b3"}},
      {"one user after the other",
       {Ask('a', 1), Ask('a', 2), Ask('b', 3), Ask('a', 4)},
       64,
       {"a1 b3", "a2", "a4", ""}},
      {"who was passed over keeps the turn",
       {Ask('a', 1), Ask('a', 2), Ask('b', 3), Ask('c', 4)},
       2,
       {"a1 b3", "a2 c4"}},
      {"alone in front", {Ask('a', 1, true), Ask('b', 2), Ask('c', 3)}, 64, {"a1", "b2 c3"}},
      {"alone behind", {Ask('b', 1), Ask('a', 2, true), Ask('c', 3)}, 64, {"b1 c3", "a2", ""}},
      {"two alone", {Ask('a', 1, true), Ask('b', 2, true)}, 64, {"a1", "b2", ""}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    LookupQueue queue;
    for (const Lookup& lookup : row.waiting) queue.Push(lookup);
    for (const std::string& batch : row.batches) CHECK(Text(queue.Take(row.most)) == batch);
  }
}

TEST_CASE("who is put back comes first, by deadline") {
  LookupQueue queue;
  queue.Push(Ask('c', 3));
  queue.PutBack({Ask('a', 2), Ask('b', 1)});
  CHECK(queue.NextDeadline() == Clock::time_point(std::chrono::seconds(1)));
  CHECK(Text(queue.Take(2)) == "a2 b1");
  CHECK(Text(queue.Take(2)) == "c3");
  CHECK(queue.empty());
  CHECK(queue.NextDeadline() == Clock::time_point::max());
}

TEST_CASE("the unwanted are removed, the others keep their order") {
  LookupQueue queue;
  for (uint64_t ticket = 1; ticket <= 4; ++ticket) {
    queue.Push(Ask(static_cast<char>('a' + ticket), ticket));
  }
  queue.Remove([](const Lookup& lookup) { return lookup.ticket % 2 == 1; });
  CHECK(Text(queue.Take(1)) == "c2");
  CHECK(Text(queue.Take(1)) == "e4");
  CHECK(queue.empty());
}

}  // namespace
}  // namespace keys
