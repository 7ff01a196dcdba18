// The lookups that wait for the database, and which of them are sent together. There is one lookup
// per session; every request of the session joins it.
//
// A batch takes one lookup per user. Users take turns: a user with more lookups (other sessions)
// goes behind the others. A lookup that is `alone` is a batch by itself. So no user waits longer
// because another user has many requests waiting.
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

// One waiting request, by the id that its transport gave it.
struct Waiter {
  uint64_t request = 0;
  Clock::time_point deadline{};
  bool gone = false;  // answered or cancelled after its lookup was sent, so it is counted
};

struct Lookup {
  Uuid user;
  Uuid session;
  std::vector<Waiter> waiters;  // in the order of their arrival, and so of their deadlines
  int failures = 0;             // failed sends that this lookup may have caused
  bool alone = false;           // send it without others
};

class LookupQueue {
 public:
  bool empty() const { return turns_.empty(); }
  size_t lookups() const { return lookups_; }
  size_t requests() const { return requests_; }

  // Adds a request to the lookup of its session. A user without a turn goes behind all others.
  void Push(const Uuid& user, const Uuid& session, const Waiter& waiter);

  // Puts lookups that must be sent again before all others, in their order, because they have
  // waited longest. The requests of their sessions that arrived meanwhile join them.
  void PutBack(std::vector<Lookup> lookups);

  // Takes the next batch, sorted by user: at most `most` lookups, at least one unless empty.
  std::vector<Lookup> Take(size_t most);

  // Takes out the lookup of a session, or all lookups of a user.
  std::vector<Waiter> TakeSession(const Uuid& user, const Uuid& session);
  std::vector<Waiter> TakeUser(const Uuid& user);
  // Takes out every request.
  std::vector<Waiter> TakeAll();
  // Takes out the requests whose deadline has come.
  std::vector<Waiter> TakeExpired(Clock::time_point now);

  // Removes a request whose client is gone. Does nothing when it does not wait here.
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

  // The user's turn; when there is none, a new one, inserted at `before`.
  Turn& TurnOf(const Uuid& user, Turns::iterator before);
  // Takes a turn's first lookup. Moves the turn behind the others, or removes it when it is empty.
  Lookup TakeFirst(Turns::iterator turn);
  // Takes the requests for which `wanted` is true out of the turns [from, to).
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
