#include "handler/auth/cookie.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

std::optional<std::string_view> FindCookie(std::string_view header, std::string_view name) {
  CookieReader reader(header);
  while (const std::optional<Cookie> cookie = reader.Next()) {
    if (cookie->name == name) return cookie->value;
  }
  return std::nullopt;
}

TEST_CASE("a cookie is found by its exact name, and its neighbours cannot hide it") {
  struct Row {
    std::string_view header;
    std::optional<std::string_view> value;
  };
  const Row rows[] = {
      // Forms that are ours.
      {"t=v", "v"},
      {"a=1; t=v; b=2", "v"},
      {"a=1;t=v;b=2", "v"},
      {"  t  =  v  ", "v"},
      {"\tt=v\t;", "v"},
      {"t=v;", "v"},
      {";;;t=v;;;", "v"},
      {"t=a=b==", "a=b=="},
      {"t=", ""},
      {"t= ; a=1", ""},
      // The first of two comes first, also when it is empty.
      {"t=first; t=second", "first"},
      {"t=; t=second", ""},
      // A value is not unquoted.
      {"t=\"v\"", "\"v\""},
      // Neighbours: junk, no `=`, no name, quotes, bytes above 0x7F, control characters.
      {"junk; t=v", "v"},
      {"=nameless; t=v", "v"},
      {"=; t=v", "v"},
      {"; ; ;; t=v", "v"},
      {"a=\"unclosed; t=v", "v"},
      {"a=\"x\\\"; t=v", "v"},
      {"\xff\xfe=\x80; t=v", "v"},
      {"a=\xe2\x80\xa2; t=v", "v"},
      {"a=\x01\x7f; t=v", "v"},
      {"a=1, b=2; t=v", "v"},
      {"$Version=1; t=v; $Path=/", "v"},
      // Names that are not ours.
      {"", std::nullopt},
      {";", std::nullopt},
      {"t", std::nullopt},
      {"T=v", std::nullopt},
      {"tt=v", std::nullopt},
      {"xt=v", std::nullopt},
      {"t.0=v", std::nullopt},
      {"a=t=v", std::nullopt},
      {"a=1, t=v", std::nullopt},
      {"\"t\"=v", std::nullopt},
      {"t\xc2\xa0=v", std::nullopt},
      {"%74=v", std::nullopt},
  };
  for (const Row& row : rows) {
    CAPTURE(row.header);
    CHECK(FindCookie(row.header, "t") == row.value);
  }
}

TEST_CASE("a NUL in the header hides nothing") {
  const std::string header("a=\0; t=v", 8);
  CHECK(FindCookie(header, "t") == "v");
}

TEST_CASE("a thousand crumbs are walked in order") {
  std::string header;
  for (int i = 0; i < 1000; ++i) header += "c" + std::to_string(i) + "=" + std::to_string(i) + "; ";
  header += "t=v";
  CHECK(FindCookie(header, "c999") == "999");
  CHECK(FindCookie(header, "t") == "v");
}

}  // namespace
}  // namespace keys
