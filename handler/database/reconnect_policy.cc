#include "handler/database/reconnect_policy.h"

#include <algorithm>

namespace keys {

ReconnectPolicy::ReconnectPolicy(std::chrono::milliseconds patience, Clock::time_point now,
                                 uint32_t seed)
    : patience_(patience), since_(now), retry_at_(now), random_(seed) {}

Clock::time_point ReconnectPolicy::circuit_opens_at() const {
  return in_outage_ ? since_ + patience_ : Clock::time_point::max();
}

void ReconnectPolicy::OnLost(Clock::time_point since, Clock::time_point now) {
  OnSuccess();
  in_outage_ = true;
  since_ = since;
  retry_at_ = now;
}

void ReconnectPolicy::OnConnectFailed(std::string_view sqlstate, Clock::time_point now) {
  if (!in_outage_) since_ = now;
  in_outage_ = true;
  std::chrono::milliseconds pause =
      kPauses[std::min(static_cast<size_t>(failures_), kPauses.size() - 1)];
  ++failures_;
  if (sqlstate.starts_with("28")) {
    pause = std::min<std::chrono::milliseconds>(
        kFirstLoginPause * (int64_t{1} << std::min<int64_t>(refused_logins_, 10)), kMaxLoginPause);
    ++refused_logins_;
  }
  retry_at_ = now + pause - pause * (random_() % 1000) / 2000;
}

void ReconnectPolicy::OnSuccess() {
  in_outage_ = false;
  failures_ = 0;
  refused_logins_ = 0;
  logged_.clear();
}

void ReconnectPolicy::OnSiblingConnected(Clock::time_point now) {
  retry_at_ = std::min(retry_at_, now);
}

bool ReconnectPolicy::ShouldLog(std::string_view reason) {
  if (std::find(logged_.begin(), logged_.end(), reason) != logged_.end()) return false;
  if (logged_.size() == kMaxReasons) return false;
  logged_.emplace_back(reason);
  return true;
}

}  // namespace keys
