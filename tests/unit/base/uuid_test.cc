#include "handler/base/uuid.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

TEST_CASE("a UUID is read in either case and written in lower case") {
  struct Row {
    std::string_view text, written;
  };
  const Row rows[] = {
      {"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"},
      {"01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"},
      {"01234567-89AB-CDEF-0123-456789ABCDEF", "01234567-89ab-cdef-0123-456789abcdef"},
      {"FFFFFFFF-ffff-FFFF-ffff-FFFFFFFFFFFF", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    const auto uuid = ParseUuid(row.text);
    REQUIRE(uuid.has_value());
    CHECK(ToString(*uuid) == row.written);
  }
}

TEST_CASE("a UUID's bytes stand in the order of its text") {
  const auto uuid = ParseUuid("01234567-89ab-cdef-0123-456789abcdef");
  REQUIRE(uuid.has_value());
  CHECK(uuid->bytes == std::array<unsigned char, 16>{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                                     0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
                                                     0xef});
}

TEST_CASE("what is not exactly a UUID is refused") {
  struct Row {
    std::string_view flaw;
    std::string_view text;
  };
  const Row rows[] = {
      {"empty", ""},
      {"no hyphens", "0123456789abcdef0123456789abcdef"},
      {"braces", "{01234567-89ab-cdef-0123-456789abcdef}"},
      {"urn", "urn:uuid:01234567-89ab-cdef-0123-456789abcdef"},
      {"one short", "01234567-89ab-cdef-0123-456789abcde"},
      {"one long", "01234567-89ab-cdef-0123-456789abcdef0"},
      {"a space before", " 01234567-89ab-cdef-0123-456789abcde"},
      {"a newline behind", "01234567-89ab-cdef-0123-456789abcde\n"},
      {"a NUL behind", {"01234567-89ab-cdef-0123-456789abcde\0", 36}},
      {"a letter above f", "01234567-89ab-cdef-0123-456789abcdeg"},
      {"a hyphen too early", "0123456-789ab-cdef-0123-456789abcdef"},
      {"a digit for a hyphen", "01234567089ab-cdef-0123-456789abcdef"},
      {"a hyphen for a digit", "01234567-89ab-cdef-0123-456789abcde-"},
      {"a sign", "+1234567-89ab-cdef-0123-456789abcdef"},
      {"a byte above 0x7F", "0123456\xb7-89ab-cdef-0123-456789abcdef"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    CHECK_FALSE(ParseUuid(row.text).has_value());
  }
}

}  // namespace
}  // namespace keys
