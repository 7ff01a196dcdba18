#include "handler/base/text.h"

#include <doctest/doctest.h>

#include <cstdint>

namespace keys {
namespace {

TEST_CASE("numbers are appended in decimal, the least and the greatest too") {
  struct Row {
    int64_t number;
    std::string_view text;
  };
  const Row rows[] = {
      {0, "n=0"},
      {7, "n=7"},
      {-7, "n=-7"},
      {1732441331, "n=1732441331"},
      {INT64_MAX, "n=9223372036854775807"},
      {INT64_MIN, "n=-9223372036854775808"},
  };
  for (const Row& row : rows) {
    std::string text = "n=";
    AppendNumber(text, row.number);
    CHECK(text == row.text);
  }
}

TEST_CASE("digits have leading zeros, and only as many as are asked for are written") {
  char text[] = "[....]";
  WriteDigits(text + 1, 42, 4);
  CHECK(std::string_view(text) == "[0042]");
  WriteDigits(text + 1, 98765, 4);
  CHECK(std::string_view(text) == "[8765]");
  WriteDigits(text + 1, 3, 0);
  CHECK(std::string_view(text) == "[8765]");
}

TEST_CASE("hexadecimal digits are lower case, with leading zeros") {
  struct Row {
    uint64_t number;
    std::string_view text;
  };
  const Row rows[] = {
      {0, "x0000000000000000"},
      {0x0123456789abcdef, "x0123456789abcdef"},
      {0xFEDCBA9876543210, "xfedcba9876543210"},
      {UINT64_MAX, "xffffffffffffffff"},
  };
  for (const Row& row : rows) {
    std::string text = "x";
    AppendHex(text, row.number);
    CHECK(text == row.text);
  }
  char byte[] = "[..]";
  WriteHex(byte + 1, 0x0A);
  CHECK(std::string_view(byte) == "[0a]");
}

// RFC 3629, section 4, row by row; each also behind eight bytes that are ASCII, which are read at
// once, and before as many.
TEST_CASE("UTF-8 is what RFC 3629 says and nothing else") {
  struct Row {
    std::string_view text;
    bool good;
  };
  const Row rows[] = {
      {"", true},
      {std::string_view("\0", 1), true},
      {"a\x7f", true},
      {"\xc2\x80", true},
      {"\xdf\xbf", true},
      {"\xe0\xa0\x80", true},
      {"\xec\xbf\xbf", true},
      {"\xed\x9f\xbf", true},
      {"\xee\x80\x80", true},
      {"\xef\xbf\xbf", true},
      {"\xf0\x90\x80\x80", true},
      {"\xf4\x8f\xbf\xbf", true},
      {"\x80", false},  // a continuation alone
      {"\xbf", false},
      {"\xc0\x80", false},  // overlong
      {"\xc1\xbf", false},
      {"\xe0\x9f\xbf", false},
      {"\xf0\x8f\xbf\xbf", false},
      {"\xed\xa0\x80", false},  // a surrogate
      {"\xed\xbf\xbf", false},
      {"\xf4\x90\x80\x80", false},  // above U+10FFFF
      {"\xf5\x80\x80\x80", false},
      {"\xff", false},
      {"\xc2", false},  // cut
      {"\xe2\x82", false},
      {"\xf0\x90\x80", false},
      {"\xc2"
       "a",
       false},  // continued by something else
      {"\xe2\x82"
       "a",
       false},
      {"\xe2"
       "a\x82",
       false},
      {"\xf0\x90\x80"
       "a",
       false},
      {"\xc2\xc0", false},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    CHECK(IsUtf8(row.text) == row.good);
    for (const size_t before : {size_t{1}, size_t{7}, size_t{8}, size_t{9}}) {
      const std::string text = std::string(before, 'a') + std::string(row.text);
      CHECK(IsUtf8(text) == row.good);
      CHECK(IsUtf8(text + std::string(before, 'b')) == row.good);
    }
  }
}

}  // namespace
}  // namespace keys
