// The lookups that wait for the database, and which of them may be asked together.
//
// Together go lookups about different users, as many as the caller allows, the longest waiting
// first; one that is `alone` goes by itself. Pure data: no socket, no clock. Thread rule: one
// thread.
#ifndef HANDLER_DATABASE_LOOKUP_QUEUE_H_
#define HANDLER_DATABASE_LOOKUP_QUEUE_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "handler/base/uuid.h"

namespace keys {

using Clock = std::chrono::steady_clock;

struct Lookup {
  uint64_t ticket = 0;  // the asker's name for it
  Uuid user;
  Uuid session;
  Clock::time_point deadline{};
  int times_sent = 0;
  bool alone = false;
  bool abandoned = false;  // answered or cancelled after it was sent: its row goes nowhere
};

class LookupQueue {
 public:
  bool empty() const { return waiting_.empty(); }

  void Push(const Lookup& lookup) { waiting_.push_back(lookup); }
  // Before all others, the earliest deadline first: they have waited longest.
  void PutBack(std::vector<Lookup> lookups);

  // The next to be asked together, in the order of their users; `most` is at least 1.
  std::vector<Lookup> Take(size_t most);

  // Takes out those for which `unwanted` is true.
  void Remove(const std::function<bool(const Lookup&)>& unwanted);

  // The deadline of the longest waiting: the earliest, as all wait equally long. max() when empty.
  Clock::time_point NextDeadline() const;

 private:
  std::deque<Lookup> waiting_;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_LOOKUP_QUEUE_H_
