#include "handler/database/reconnect_policy.h"

#include <algorithm>
#include <utility>

namespace keys {

ReconnectPolicy::ReconnectPolicy(size_t hosts, std::chrono::milliseconds patience,
                                 Clock::time_point now)
    : hosts_(hosts),
      patience_(patience),
      since_(now),
      retry_at_(now),
      random_(std::random_device{}()) {}

bool ReconnectPolicy::CircuitIsOpen(Clock::time_point now) const {
  return in_outage_ && (failures_ >= hosts_ || now - since_ >= patience_);
}

void ReconnectPolicy::OnLost(Clock::time_point since, Clock::time_point now, bool leave) {
  OnSuccess();
  in_outage_ = true;
  since_ = since;
  retry_at_ = now;
  if (leave) host_ = (host_ + 1) % hosts_;
}

void ReconnectPolicy::OnConnectFailed(Clock::time_point now) {
  if (!in_outage_) since_ = now;
  in_outage_ = true;
  host_ = (host_ + 1) % hosts_;
  retry_at_ = now;
  if (++failures_ % hosts_ != 0) return;
  const size_t rounds = failures_ / hosts_;
  const auto pause = std::min(kFirstPause * (1 << std::min<size_t>(rounds - 1, 10)), kMaxPause);
  retry_at_ += pause / 2 + pause * (random_() % 1000) / 2000;
}

void ReconnectPolicy::OnSuccess() {
  if (!in_outage_) return;
  in_outage_ = false;
  failures_ = 0;
  logged_ = {};
}

bool ReconnectPolicy::ShouldLog(Event event) {
  if (!in_outage_) return false;
  return !std::exchange(logged_[static_cast<size_t>(event)], true);
}

}  // namespace keys
