// The lookups that wait for the database: one per session, joined by every request of that session,
// and which of them may be sent together.
//
// A batch takes one lookup per user, users in turn: a user with more lookups (other sessions) goes
// behind the others. A lookup that is `alone` is a batch by itself. So every user waits for one
// batch at most, however many requests another user has waiting.
//
// Pure data: no socket, no clock. Thread rule: one thread.
#ifndef HANDLER_DATABASE_LOOKUP_QUEUE_H_
#define HANDLER_DATABASE_LOOKUP_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <unordered_map>
#include <vector>

#include "handler/base/clock.h"
#include "handler/base/uuid.h"

namespace keys {

// One request that waits, by the name that its transport gave it.
struct Waiter {
  uint64_t request = 0;
  Clock::time_point deadline{};
  bool gone = false;  // answered or cancelled after its lookup was sent: it was counted
};

struct Lookup {
  Uuid user;
  Uuid session;
  std::vector<Waiter> waiters;  // in the order of their arrival, and so of their deadlines
  int failures = 0;             // sends that failed in a way that this lookup may have caused
  bool alone = false;           // it is to be sent without others
};

class LookupQueue {
 public:
  bool empty() const { return turns_.empty(); }
  size_t lookups() const { return lookups_; }
  size_t requests() const { return requests_; }

  // A request joins the lookup of its session, or begins one behind all other users.
  void Push(const Uuid& user, const Uuid& session, const Waiter& waiter);

  // Lookups that were sent and are to be sent again: before all others, in their order, since they
  // have waited longest. Each takes along the requests of its session that came meanwhile.
  void PutBack(std::vector<Lookup> lookups);

  // The next batch, in the order of its users: at most `most` lookups, at least one unless empty.
  std::vector<Lookup> Take(size_t most);

  // Takes out the lookup of a session, or all lookups of a user.
  std::vector<Waiter> TakeSession(const Uuid& user, const Uuid& session);
  std::vector<Waiter> TakeUser(const Uuid& user);
  // Takes out every request.
  std::vector<Waiter> TakeAll();
  // Takes out the requests whose deadline has come.
  std::vector<Waiter> TakeExpired(Clock::time_point now);

  // A request is gone. Does nothing when it does not wait here.
  void Cancel(uint64_t request);

  // No deadline comes before this; max() when empty. TakeExpired makes it exact.
  Clock::time_point NextDeadline() const { return empty() ? Clock::time_point::max() : next_; }

 private:
  struct Turn {
    Uuid user;
    std::deque<Lookup> lookups;  // one per session, never empty
  };
  struct HashUuid {
    size_t operator()(const Uuid& uuid) const {
      size_t hash = 0;
      std::memcpy(&hash, uuid.bytes.data() + 8, sizeof hash);  // the random half of a UUID
      return hash;
    }
  };
  using Turns = std::list<Turn>;

  // A user's turn; a new one, `before` which it is placed, when the user has none.
  Turn& TurnOf(const Uuid& user, Turns::iterator before);
  // Takes the first lookup; its turn goes behind the others, or away when it was the last.
  Lookup TakeFirst(Turns::iterator turn);
  // Takes out the requests for which `wanted` is true, of the turns from `from` up to `to`.
  template <typename Wanted>
  std::vector<Waiter> Extract(Turns::iterator from, Turns::iterator to, Wanted wanted);

  Turns turns_;  // users, the next one first
  std::unordered_map<Uuid, Turns::iterator, HashUuid> by_user_;
  size_t lookups_ = 0;
  size_t requests_ = 0;
  Clock::time_point next_ = Clock::time_point::max();
};

}  // namespace keys

#endif  // HANDLER_DATABASE_LOOKUP_QUEUE_H_
