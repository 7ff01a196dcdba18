#include "handler/database/lookup_queue.h"

#include <algorithm>
#include <iterator>

namespace keys {
namespace {

std::deque<Lookup>::iterator FindSession(std::deque<Lookup>& lookups, const Uuid& session) {
  return std::find_if(lookups.begin(), lookups.end(),
                      [&](const Lookup& lookup) { return lookup.session == session; });
}

}  // namespace

LookupQueue::Turn& LookupQueue::TurnOf(const Uuid& user, Turns::iterator before) {
  const auto found = by_user_.find(user);
  if (found != by_user_.end()) return *found->second;
  const auto turn = turns_.insert(before, Turn{user, {}});
  by_user_.emplace(user, turn);
  return *turn;
}

void LookupQueue::Push(const Uuid& user, const Uuid& session, const Waiter& waiter) {
  if (empty()) next_ = Clock::time_point::max();
  next_ = std::min(next_, waiter.deadline);
  ++requests_;
  Turn& turn = TurnOf(user, turns_.end());
  auto lookup = FindSession(turn.lookups, session);
  if (lookup == turn.lookups.end()) {
    ++lookups_;
    lookup = turn.lookups.insert(
        lookup, Lookup{.user = user, .session = session, .waiters = {}, .failures = 0});
  }
  lookup->waiters.push_back(waiter);
}

void LookupQueue::PutBack(std::vector<Lookup> lookups) {
  if (empty()) next_ = Clock::time_point::max();
  const auto first = turns_.begin();
  for (Lookup& lookup : lookups) {
    for (const Waiter& waiter : lookup.waiters) next_ = std::min(next_, waiter.deadline);
    requests_ += lookup.waiters.size();
    Turn& turn = TurnOf(lookup.user, first);
    const auto joined = FindSession(turn.lookups, lookup.session);
    if (joined != turn.lookups.end()) {
      lookup.waiters.insert(lookup.waiters.end(), joined->waiters.begin(), joined->waiters.end());
      turn.lookups.erase(joined);
      --lookups_;
    }
    // The turn of a user who has sent more requests meanwhile moves to the front, too.
    const auto position = by_user_.at(lookup.user);
    turns_.splice(first, turns_, position);
    turn.lookups.push_front(std::move(lookup));
    ++lookups_;
  }
}

Lookup LookupQueue::TakeFirst(Turns::iterator turn) {
  Lookup lookup = std::move(turn->lookups.front());
  turn->lookups.pop_front();
  --lookups_;
  requests_ -= lookup.waiters.size();
  if (turn->lookups.empty()) {
    by_user_.erase(turn->user);
    turns_.erase(turn);
  } else {
    turns_.splice(turns_.end(), turns_, turn);
  }
  return lookup;
}

std::vector<Lookup> LookupQueue::Take(size_t most) {
  std::vector<Lookup> batch;
  const size_t users = turns_.size();
  auto turn = turns_.begin();
  for (size_t seen = 0; seen < users && batch.size() < most; ++seen) {
    const auto next = std::next(turn);
    const bool is_alone = turn->lookups.front().alone;
    if (!is_alone || batch.empty()) batch.push_back(TakeFirst(turn));
    if (is_alone && batch.size() == 1 && batch.front().alone) break;
    turn = next;
  }
  std::sort(batch.begin(), batch.end(),
            [](const Lookup& one, const Lookup& other) { return one.user < other.user; });
  return batch;
}

template <typename Wanted>
std::vector<Waiter> LookupQueue::Extract(Turns::iterator from, Turns::iterator to, Wanted wanted) {
  std::vector<Waiter> taken;
  for (auto turn = from; turn != to;) {
    for (auto lookup = turn->lookups.begin(); lookup != turn->lookups.end();) {
      std::vector<Waiter>& waiters = lookup->waiters;
      const auto removed =
          std::stable_partition(waiters.begin(), waiters.end(),
                                [&](const Waiter& waiter) { return !wanted(*lookup, waiter); });
      taken.insert(taken.end(), removed, waiters.end());
      waiters.erase(removed, waiters.end());
      if (!waiters.empty()) {
        ++lookup;
        continue;
      }
      lookup = turn->lookups.erase(lookup);
      --lookups_;
    }
    const auto next = std::next(turn);
    if (turn->lookups.empty()) {
      by_user_.erase(turn->user);
      turns_.erase(turn);
    }
    turn = next;
  }
  requests_ -= taken.size();
  return taken;
}

std::vector<Waiter> LookupQueue::TakeUser(const Uuid& user) {
  const auto found = by_user_.find(user);
  if (found == by_user_.end()) return {};
  return Extract(found->second, std::next(found->second),
                 [](const Lookup&, const Waiter&) { return true; });
}

std::vector<Waiter> LookupQueue::TakeSession(const Uuid& user, const Uuid& session) {
  const auto found = by_user_.find(user);
  if (found == by_user_.end()) return {};
  return Extract(found->second, std::next(found->second),
                 [&](const Lookup& lookup, const Waiter&) { return lookup.session == session; });
}

std::vector<Waiter> LookupQueue::TakeAll() {
  return Extract(turns_.begin(), turns_.end(), [](const Lookup&, const Waiter&) { return true; });
}

std::vector<Waiter> LookupQueue::TakeExpired(Clock::time_point now) {
  next_ = Clock::time_point::max();
  return Extract(turns_.begin(), turns_.end(), [&](const Lookup&, const Waiter& waiter) {
    if (waiter.deadline <= now) return true;
    next_ = std::min(next_, waiter.deadline);
    return false;
  });
}

void LookupQueue::Cancel(uint64_t request) {
  Extract(turns_.begin(), turns_.end(),
          [&](const Lookup&, const Waiter& waiter) { return waiter.request == request; });
}

}  // namespace keys
