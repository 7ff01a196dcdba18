#include "handler/base/base64url.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

TEST_CASE("base64url decodes what RFC 4648 section 10 and RFC 7515 appendix C encode") {
  struct Row {
    std::string_view text, bytes;
  };
  const Row rows[] = {
      {"", ""},
      {"Zg", "f"},
      {"Zm8", "fo"},
      {"Zm9v", "foo"},
      {"Zm9vYg", "foob"},
      {"Zm9vYmE", "fooba"},
      {"Zm9vYmFy", "foobar"},
      {"A-z_4ME", "\x03\xec\xff\xe0\xc1"},
      {"AA", {"\0", 1}},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    CHECK(DecodeBase64url(row.text) == row.bytes);
  }
}

TEST_CASE("base64url refuses every second spelling of a value") {
  struct Row {
    std::string_view flaw;
    std::string_view text;
  };
  const Row rows[] = {
      {"one letter alone", "Z"},
      {"one letter after a group", "Zm9vY"},
      {"padding", "Zg=="},
      {"padding of one", "Zm8="},
      {"padding in the middle", "Zg==Zg=="},
      {"padding only", "="},
      {"a spare bit of two letters", "Zh"},
      {"the highest spare bit of two letters", "Zo"},
      {"a spare bit of three letters", "Zm9"},
      {"a spare bit at the end of a long text", "Zm9vYmFyZh"},
      {"standard alphabet +", "A+z_"},
      {"standard alphabet /", "A-z/"},
      {"a space", "Zm 9"},
      {"a newline at the end", "Zm9v\n"},
      {"a newline within", "Zm9v\nYmE"},
      {"a NUL", {"Zm9\0", 4}},
      {"a byte above 0x7F", "Zm9\xff"},
      {"UTF-8", "Zm\xc3\xa9"},
      {"a dot", "Zm9v.mFy"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    CHECK_FALSE(DecodeBase64url(row.text).has_value());
  }
}

TEST_CASE("base64url is the inverse of an encoder for every length and byte") {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    CAPTURE(i);
    const std::string text = test::EncodeBase64url(bytes);
    CHECK(DecodeBase64url(text) == bytes);
    bytes += static_cast<char>(i * 37);
  }
}

TEST_CASE("base64url refuses exactly the letters that are none") {
  for (int c = 0; c < 256; ++c) {
    CAPTURE(c);
    const char letter = static_cast<char>(c);
    const bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_';
    for (size_t place = 0; place < 4; ++place) {
      std::string text = "AAAA";
      text[place] = letter;
      CHECK(DecodeBase64url(text).has_value() == good);
    }
  }
}

TEST_CASE("base64url writes no byte beyond the capacity") {
  std::array<char, 8> out;
  out.fill('x');
  CHECK(DecodeBase64url("Zm9vYmFy", out.data(), 6) == 6);
  CHECK(out[6] == 'x');
  CHECK_FALSE(DecodeBase64url("Zm9vYmFy", out.data(), 5).has_value());
  CHECK(DecodeBase64url("Zg", out.data(), 1) == 1);
  CHECK_FALSE(DecodeBase64url("Zg", out.data(), 0).has_value());
}

TEST_CASE("base64url decodes in place") {
  std::string text = "Zm9vYmFyZm8";
  CHECK(DecodeBase64url(text, text.data(), text.size()) == 8);
  CHECK(text.substr(0, 8) == "foobarfo");
}

}  // namespace
}  // namespace keys
