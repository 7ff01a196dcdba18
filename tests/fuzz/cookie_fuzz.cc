// The Cookie header: what is found lies in the header, and is what the name's first crumb says;
// chunks and sessions of any kind end in a token or a refusal.
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

#include "handler/auth/cookie.h"
#include "handler/auth/session_cookie.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view header(reinterpret_cast<const char*>(data), size);
  const std::less_equal<const char*> before;

  keys::CookieReader reader(header);
  while (const auto cookie = reader.Next()) {
    if (cookie->name.empty()) std::abort();
    if (!before(header.data(), cookie->name.data())) std::abort();
    if (!before(cookie->value.data() + cookie->value.size(), header.data() + size)) std::abort();
    if (!keys::FindCookie(header, cookie->name)) std::abort();
  }
  // No neighbour hides the cookie, from whichever side.
  const auto found = keys::FindCookie(header, "t");
  const std::string after = std::string(header) + "; t=v";
  if (keys::FindCookie(after, "t") != found.value_or("v")) std::abort();
  if (keys::FindCookie("t=v;" + std::string(header), "t") != "v") std::abort();

  static const keys::SessionCookieNames kNames{"t", "s"};
  std::string scratch;
  const auto token = keys::FindSessionToken(header, kNames, scratch);
  if (const auto* const refusal = std::get_if<keys::TokenRefusal>(&token)) {
    if (keys::Describe(*refusal).empty()) std::abort();
    if (found) std::abort();
  }
  return 0;
}
