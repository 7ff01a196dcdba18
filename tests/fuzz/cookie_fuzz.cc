// The Cookie header: what is found lies in the header, and is what the name's first crumb says;
// chunks and sessions of any kind end in a token or a refusal.
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

#include "handler/auth/cookie.h"
#include "handler/auth/session_cookie.h"

namespace {

std::optional<std::string_view> FindCookie(std::string_view header, std::string_view name) {
  keys::CookieReader reader(header);
  while (const auto cookie = reader.Next()) {
    if (cookie->name == name) return cookie->value;
  }
  return std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view header(reinterpret_cast<const char*>(data), size);
  const std::less_equal<const char*> before;

  keys::CookieReader reader(header);
  while (const auto cookie = reader.Next()) {
    if (cookie->name.empty()) std::abort();
    if (!before(header.data(), cookie->name.data())) std::abort();
    if (!before(cookie->value.data() + cookie->value.size(), header.data() + size)) std::abort();
    if (!FindCookie(header, cookie->name)) std::abort();
  }
  // No neighbour hides the cookie, from whichever side.
  const auto found = FindCookie(header, "t");
  const std::string after = std::string(header) + "; t=v";
  if (FindCookie(after, "t") != found.value_or("v")) std::abort();
  if (FindCookie("t=v;" + std::string(header), "t") != "v") std::abort();

  static const keys::SessionCookieNames kNames{"t", "s"};
  std::string scratch;
  keys::SessionCandidates candidates(header, kNames, scratch);
  size_t tokens = 0;
  for (auto candidate = candidates.Next(); candidate; candidate = candidates.Next()) {
    const auto* const token = std::get_if<std::string_view>(&*candidate);
    if (token != nullptr && ++tokens == 1 && found && *token != *found) std::abort();
  }
  if (tokens > keys::kMaxCandidates || (found && tokens == 0)) std::abort();
  return 0;
}
