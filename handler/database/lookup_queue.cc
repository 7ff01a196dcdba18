#include "handler/database/lookup_queue.h"

#include <algorithm>

namespace keys {
namespace {

// The search for others ends here: a few users with thousands of lookups cost no more.
constexpr size_t kMaxPassedOver = 128;

bool HasUser(const std::vector<Lookup>& lookups, const Uuid& user) {
  return std::any_of(lookups.begin(), lookups.end(),
                     [&](const Lookup& lookup) { return lookup.user == user; });
}

}  // namespace

void LookupQueue::PutBack(std::vector<Lookup> lookups) {
  std::stable_sort(lookups.begin(), lookups.end(), [](const Lookup& one, const Lookup& other) {
    return one.deadline < other.deadline;
  });
  waiting_.insert(waiting_.begin(), lookups.begin(), lookups.end());
}

std::vector<Lookup> LookupQueue::Take(size_t most) {
  std::vector<Lookup> taken;
  std::vector<Lookup> left;
  while (!waiting_.empty() && taken.size() < most && left.size() < kMaxPassedOver) {
    const Lookup& next = waiting_.front();
    const bool fits = taken.empty() || (!next.alone && !HasUser(taken, next.user));
    (fits ? taken : left).push_back(next);
    waiting_.pop_front();
    if (taken.front().alone) break;
  }
  PutBack(left);
  std::sort(taken.begin(), taken.end(),
            [](const Lookup& one, const Lookup& other) { return one.user < other.user; });
  return taken;
}

void LookupQueue::Remove(const std::function<bool(const Lookup&)>& unwanted) {
  std::erase_if(waiting_, unwanted);
}

Clock::time_point LookupQueue::NextDeadline() const {
  return waiting_.empty() ? Clock::time_point::max() : waiting_.front().deadline;
}

}  // namespace keys
