#include "handler/api/rate_limit.h"

#include <algorithm>

#include "handler/base/text.h"

namespace keys {
namespace {

constexpr int64_t kMicrosecondsPerSecond = 1000000;

// `later`: how many of the counted requests come after the one that gets this response.
Window WindowOf(std::string_view name, int32_t length_s, const WindowCount& count, int32_t later,
                DatabaseTime now) {
  Window window;
  window.name = name;
  window.length_s = length_s;
  window.limit = count.limit;
  window.remaining = std::max(count.limit - (count.count - later), 0);
  window.reset = std::chrono::ceil<std::chrono::seconds>(count.ends).time_since_epoch().count();
  window.microseconds = std::max<int64_t>((count.ends - now).count(), 0);
  return window;
}

void AppendField(std::string& headers, std::string_view name, int64_t value) {
  headers += name;
  AppendNumber(headers, value);
  headers += "\r\n";
}

void AppendPolicy(std::string& headers, const Window& window) {
  headers += '"';
  headers += window.name;
  headers += "\";q=";
  AppendNumber(headers, window.limit);
  headers += ";w=";
  AppendNumber(headers, window.length_s);
}

void AppendState(std::string& headers, const Window& window) {
  headers += '"';
  headers += window.name;
  headers += "\";r=";
  AppendNumber(headers, window.remaining);
  headers += ";t=";
  AppendNumber(headers, window.SecondsLeft());
}

}  // namespace

int64_t Window::SecondsLeft() const {
  return std::max<int64_t>((microseconds + kMicrosecondsPerSecond - 1) / kMicrosecondsPerSecond, 1);
}

Quota QuotaOf(const KeyList& list, size_t position) {
  const auto granted = static_cast<size_t>(list.granted);
  const auto later = static_cast<int32_t>(position < granted ? granted - position - 1 : 0);
  return {WindowOf("minute", 60, list.minute, later, list.now),
          WindowOf("day", 86400, list.day, later, list.now)};
}

void AppendRateLimitHeaders(const Quota& quota, bool over, std::string& headers) {
  const Window& described = quota.Described();
  AppendField(headers, "X-RateLimit-Limit: ", described.limit);
  AppendField(headers, "X-RateLimit-Remaining: ", described.remaining);
  AppendField(headers, "X-RateLimit-Reset: ", described.reset);
  headers += "RateLimit-Policy: ";
  AppendPolicy(headers, quota.minute);
  headers += ", ";
  AppendPolicy(headers, quota.day);
  headers += "\r\nRateLimit: ";
  AppendState(headers, quota.minute);
  headers += ", ";
  AppendState(headers, quota.day);
  headers += "\r\n";
  if (over) AppendField(headers, "Retry-After: ", described.SecondsLeft());
}

std::optional<Quota> OverLimitCache::Find(const Uuid& user,
                                          std::chrono::steady_clock::time_point now) {
  const Entry* const entry = users_.Find(user);
  if (entry == nullptr || now >= entry->until) return std::nullopt;
  Quota quota = entry->quota;
  const int64_t passed =
      std::chrono::duration_cast<std::chrono::microseconds>(now - entry->learned).count();
  quota.minute.microseconds -= passed;
  quota.day.microseconds -= passed;
  return quota;
}

void OverLimitCache::Remember(const Uuid& user, const Quota& quota,
                              std::chrono::steady_clock::time_point now) {
  const int64_t left =
      std::min({quota.minute.microseconds, quota.day.microseconds, 60 * kMicrosecondsPerSecond});
  users_.Insert(user, {quota, now, now + std::chrono::microseconds(left)});
}

}  // namespace keys
