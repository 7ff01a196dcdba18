#include "handler/auth/cookie.h"

namespace keys {
namespace {

std::string_view Trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<Cookie> CookieReader::Next() {
  while (!rest_.empty()) {
    const size_t end = rest_.find(';');
    const std::string_view crumb = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);

    const size_t equals = crumb.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = Trim(crumb.substr(0, equals));
    if (name.empty()) continue;
    return Cookie{name, Trim(crumb.substr(equals + 1))};
  }
  return std::nullopt;
}

}  // namespace keys
