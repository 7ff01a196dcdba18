// Reads the cookies of a Cookie header (RFC 6265 sections 4.2.1 and 5.4).
//
// Crumbs are separated by `;`; white space around name and value is dropped. Two cookies may have
// one name: browsers send the most specific path first. A crumb without `=` or without a name is
// skipped. A value is returned as it is: neither unquoted nor percent-decoded.
#ifndef HANDLER_AUTH_COOKIE_H_
#define HANDLER_AUTH_COOKIE_H_

#include <optional>
#include <string_view>

namespace keys {

struct Cookie {
  std::string_view name;
  std::string_view value;
};

// Walks the cookies of a header. The header must outlive the reader and what it returns.
class CookieReader {
 public:
  explicit CookieReader(std::string_view header) : rest_(header) {}
  // The next cookie; nullopt at the end.
  std::optional<Cookie> Next();

 private:
  std::string_view rest_;
};

}  // namespace keys

#endif  // HANDLER_AUTH_COOKIE_H_
