#include "handler/question_queue.h"

#include <algorithm>

namespace keys {
namespace {

// The search for others ends here: a few users with thousands of questions cost no more.
constexpr size_t kMostPassedOver = 128;

bool HasUser(const std::vector<Question>& questions, const Uuid& user) {
  return std::any_of(questions.begin(), questions.end(),
                     [&](const Question& question) { return question.user == user; });
}

}  // namespace

void QuestionQueue::PutBack(std::vector<Question> questions) {
  std::stable_sort(
      questions.begin(), questions.end(),
      [](const Question& one, const Question& other) { return one.deadline < other.deadline; });
  waiting_.insert(waiting_.begin(), questions.begin(), questions.end());
}

std::vector<Question> QuestionQueue::Take(size_t most) {
  std::vector<Question> taken;
  std::vector<Question> left;
  while (!waiting_.empty() && taken.size() < most && left.size() < kMostPassedOver) {
    const Question& next = waiting_.front();
    const bool fits = taken.empty() || (!next.alone && !HasUser(taken, next.user));
    (fits ? taken : left).push_back(next);
    waiting_.pop_front();
    if (taken.front().alone) break;
  }
  PutBack(left);
  std::sort(taken.begin(), taken.end(),
            [](const Question& one, const Question& other) { return one.user < other.user; });
  return taken;
}

void QuestionQueue::Remove(const std::function<bool(const Question&)>& unwanted) {
  std::erase_if(waiting_, unwanted);
}

Clock::time_point QuestionQueue::NextDeadline() const {
  return waiting_.empty() ? Clock::time_point::max() : waiting_.front().deadline;
}

}  // namespace keys
