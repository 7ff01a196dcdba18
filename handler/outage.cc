#include "handler/outage.h"

#include <algorithm>
#include <utility>

namespace keys {

Outage::Outage(size_t hosts, std::chrono::milliseconds patience, Clock::time_point now)
    : hosts_(hosts),
      patience_(patience),
      since_(now),
      connect_at_(now),
      random_(std::random_device{}()) {}

bool Outage::CircuitIsOpen(Clock::time_point now) const {
  return is_on_ && (failures_ >= hosts_ || now - since_ >= patience_);
}

void Outage::Lost(Clock::time_point since, Clock::time_point now, bool leave) {
  Answered();
  is_on_ = true;
  since_ = since;
  connect_at_ = now;
  if (leave) host_ = (host_ + 1) % hosts_;
}

void Outage::Failed(Clock::time_point now) {
  if (!is_on_) since_ = now;
  is_on_ = true;
  host_ = (host_ + 1) % hosts_;
  connect_at_ = now;
  if (++failures_ % hosts_ != 0) return;
  const size_t rounds = failures_ / hosts_;
  const auto pause = std::min(kFirstPause * (1 << std::min<size_t>(rounds - 1, 10)), kLongestPause);
  connect_at_ += pause / 2 + pause * (random_() % 1000) / 2000;
}

void Outage::Answered() {
  if (!is_on_) return;
  is_on_ = false;
  failures_ = 0;
  told_ = {};
}

bool Outage::IsNews(Event event) {
  if (!is_on_) return false;
  return !std::exchange(told_[static_cast<size_t>(event)], true);
}

}  // namespace keys
