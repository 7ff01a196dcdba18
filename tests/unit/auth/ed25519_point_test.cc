#include "handler/auth/ed25519_point.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

TEST_CASE("public keys of RFC 8032 section 7.1 are good points") {
  for (const std::string hex :
       {"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "ec172b93ad5e563f4932c70e1245034c35467ef2efd4d64ebf819683467e2bf2",
        // The base point, section 5.1.
        "5866666666666666666666666666666666666666666666666666666666666666"}) {
    CAPTURE(hex);
    CHECK(IsGoodEd25519Point(test::DecodeHex(hex)));
  }
}

TEST_CASE("points of small order, off the curve or not canonical are refused") {
  struct Row {
    std::string_view flaw;
    std::string_view hex;
  };
  const Row rows[] = {
      {"order 1", "0100000000000000000000000000000000000000000000000000000000000000"},
      {"order 1, negative zero",
       "0100000000000000000000000000000000000000000000000000000000000080"},
      {"order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
      {"order 4", "0000000000000000000000000000000000000000000000000000000000000000"},
      {"order 4, the other", "0000000000000000000000000000000000000000000000000000000000000080"},
      {"order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"},
      {"order 8, the second", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"},
      {"order 8, the third", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"},
      {"order 8, the fourth", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"},
      {"y is p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
      {"y is p + 1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
      {"y is 2^255 - 1", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
      {"all ones", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
      {"no x for this y", "0200000000000000000000000000000000000000000000000000000000000000"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    CHECK_FALSE(IsGoodEd25519Point(test::DecodeHex(row.hex)));
  }
}

TEST_CASE("about half of all y have no point") {
  int good = 0;
  for (int i = 2; i < 202; ++i) {
    std::string y(32, '\0');
    y[0] = static_cast<char>(i);
    good += IsGoodEd25519Point(y) ? 1 : 0;
  }
  CHECK(good > 60);
  CHECK(good < 140);
}

TEST_CASE("another length is no point") {
  CHECK_FALSE(IsGoodEd25519Point(""));
  CHECK_FALSE(IsGoodEd25519Point(std::string(31, 'f')));
  CHECK_FALSE(IsGoodEd25519Point(std::string(33, 'f')));
}

}  // namespace
}  // namespace keys
