// Finds a cookie in the value of a Cookie header (RFC 6265 sections 4.2.1 and 5.4).
//
// Crumbs are separated by `;`; white space around name and value is dropped. A name is compared
// exactly. Of two cookies of one name the first counts: browsers send the most specific path first.
// What is no cookie (no `=`, no name, bytes above 0x7F, quotes) is passed over and hides nobody. A
// value is handed out as it is: not unquoted, not percent-decoded.
#ifndef HANDLER_AUTH_COOKIE_H_
#define HANDLER_AUTH_COOKIE_H_

#include <optional>
#include <string_view>

namespace keys {

struct Cookie {
  std::string_view name;
  std::string_view value;
};

// Walks the cookies of a header, which must outlive it and what it hands out.
class CookieReader {
 public:
  explicit CookieReader(std::string_view header) : rest_(header) {}
  // The next cookie; nullopt at the end.
  std::optional<Cookie> Next();

 private:
  std::string_view rest_;
};

// The value of the first cookie called `name`; may be empty. nullopt when there is none.
std::optional<std::string_view> FindCookie(std::string_view header, std::string_view name);

}  // namespace keys

#endif  // HANDLER_AUTH_COOKIE_H_
