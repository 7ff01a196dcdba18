// The questions that wait for the database, and which of them may be asked together.
//
// Together go questions about different users, as many as the caller allows, the longest waiting
// first; one that is `alone` goes by itself. Pure data: no socket, no clock. Thread rule: one
// thread.
#ifndef HANDLER_QUESTION_QUEUE_H_
#define HANDLER_QUESTION_QUEUE_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "handler/uuid.h"

namespace keys {

using Clock = std::chrono::steady_clock;

struct Question {
  uint64_t ticket = 0;  // the asker's name for it
  Uuid user;
  Uuid session;
  Clock::time_point deadline{};
  int times_sent = 0;
  bool alone = false;
  bool abandoned = false;  // answered or cancelled after it was sent: its row goes nowhere
};

class QuestionQueue {
 public:
  bool empty() const { return waiting_.empty(); }

  void Push(const Question& question) { waiting_.push_back(question); }
  // Before all others, the earliest deadline first: they have waited longest.
  void PutBack(std::vector<Question> questions);

  // The next to be asked together, in the order of their users; `most` is at least 1.
  std::vector<Question> Take(size_t most);

  // Takes out those for which `unwanted` is true.
  void Remove(const std::function<bool(const Question&)>& unwanted);

  // The deadline of the longest waiting: the earliest, as all wait equally long. max() when empty.
  Clock::time_point NextDeadline() const;

 private:
  std::deque<Question> waiting_;
};

}  // namespace keys

#endif  // HANDLER_QUESTION_QUEUE_H_
