#include "handler/auth/verification_key.h"

#include <doctest/doctest.h>
#include <openssl/err.h>

#include <string>

#include "handler/auth/jwk_set.h"
#include "handler/base/base64url.h"
#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

using test::DecodeHex;
using test::Sha256;
using test::Signer;

constexpr std::string_view kInput = "header.claims";

// A set of the signer's key, alone.
std::unique_ptr<const JwkSet> SetOf(const Signer& signer) {
  return JwkSet::Load("{\"keys\":[" + signer.Jwk("") + "]}", std::nullopt).set;
}

bool Verifies(const Signer& signer, std::string_view signature, std::string_view input = kInput) {
  const auto set = SetOf(signer);
  const auto found = set->Find(std::nullopt, NameOf(signer.algorithm()));
  const bool good = (*std::get<JwkSet::Candidates>(found).begin())->Verify(input, signature);
  CHECK(ERR_peek_error() == 0);
  return good;
}

TEST_CASE("algorithms have exactly their names") {
  for (const Algorithm algorithm :
       {Algorithm::kHs256, Algorithm::kEs256, Algorithm::kRs256, Algorithm::kEdDsa}) {
    CHECK(ParseAlgorithm(NameOf(algorithm)) == algorithm);
  }
  CHECK(ParseAlgorithm("Ed25519") == Algorithm::kEdDsa);  // RFC 9864
  for (const std::string_view name :
       {"", "none", "None", "hs256", "HS256 ", "HS2561", "HS384", "EDDSA", "ed25519", "Ed448"}) {
    CAPTURE(name);
    CHECK_FALSE(ParseAlgorithm(name).has_value());
  }
}

TEST_CASE("each key verifies its own signatures, again and again, and nothing else") {
  for (const Algorithm algorithm :
       {Algorithm::kHs256, Algorithm::kEs256, Algorithm::kRs256, Algorithm::kEdDsa}) {
    CAPTURE(NameOf(algorithm));
    const Signer& signer = Signer::Of(algorithm);
    const auto set = SetOf(signer);
    const auto found = set->Find(std::nullopt, NameOf(algorithm));
    const VerificationKey& key = **std::get<JwkSet::Candidates>(found).begin();
    const std::string good = signer.Sign(kInput);
    for (int round = 0; round < 3; ++round) {
      CHECK(key.Verify(kInput, good));
      CHECK(key.Verify("other", signer.Sign("other")));
      CHECK_FALSE(key.Verify("other", good));
      CHECK_FALSE(key.Verify("", good));
      CHECK_FALSE(key.Verify(kInput, ""));
      CHECK_FALSE(key.Verify(kInput, good + std::string(1, '\0')));
      CHECK_FALSE(key.Verify(kInput, std::string(1, '\0') + good));
      CHECK_FALSE(key.Verify(kInput, good.substr(1)));
      CHECK_FALSE(key.Verify(kInput, good.substr(0, good.size() - 1)));
      CHECK_FALSE(key.Verify(kInput, std::string(good.size(), '\0')));
      CHECK_FALSE(key.Verify(kInput, std::string(good.size(), '\xff')));
      CHECK_FALSE(key.Verify(kInput, Signer::Of(algorithm, 1).Sign(kInput)));
      for (const size_t place : {size_t{0}, good.size() / 2, good.size() - 1}) {
        std::string changed = good;
        changed[place] = static_cast<char>(changed[place] ^ 1);
        CHECK_FALSE(key.Verify(kInput, changed));
      }
      CHECK(ERR_peek_error() == 0);
    }
    CHECK(key.Verify("", signer.Sign("")));
    CHECK(key.Verify(std::string(8192, 'x'), signer.Sign(std::string(8192, 'x'))));
  }
}

TEST_CASE("an ES256 signature is r||s within the group, never DER") {
  const Signer& signer = Signer::Of(Algorithm::kEs256);
  // The order of P-256 (SEC 2 section 2.4.2).
  const std::string n = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
  const std::string n_plus_1 = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552";
  const std::string zero(64, '0'), one = std::string(63, '0') + "1", ones(64, 'f');

  const std::string good = signer.Sign(kInput);
  CHECK(Verifies(signer, good));
  for (const std::string& r : {zero, one, n, n_plus_1, ones}) {
    for (const std::string& s : {zero, one, n, n_plus_1, ones}) {
      CAPTURE(r);
      CAPTURE(s);
      CHECK_FALSE(Verifies(signer, DecodeHex(r + s)));
    }
    CHECK_FALSE(Verifies(signer, DecodeHex(r) + good.substr(32)));
    CHECK_FALSE(Verifies(signer, good.substr(0, 32) + DecodeHex(r)));
  }
  for (int i = 0; i < 20; ++i) CHECK_FALSE(Verifies(signer, signer.SignDer(kInput)));
  // Signatures whose numbers begin with zero bytes are signatures like others.
  for (int i = 0; i < 600; ++i) REQUIRE(Verifies(signer, signer.Sign(kInput)));
}

// The block that RSASSA-PKCS1-v1_5 signs (RFC 8017 section 9.2), with its parts to be changed.
std::string Block(const std::string& start, const std::string& separator,
                  const std::string& digest_info, const std::string& hash,
                  const std::string& after = "") {
  const size_t rest =
      start.size() + separator.size() + digest_info.size() + hash.size() + after.size();
  return start + std::string(256 - rest, '\xff') + separator + digest_info + hash + after;
}

TEST_CASE("RS256 takes exactly the padding of PKCS #1 v1.5 with SHA-256") {
  const Signer& signer = Signer::Of(Algorithm::kRs256);
  const std::string hash = Sha256(kInput);
  const std::string start = DecodeHex("0001"), zero = DecodeHex("00");
  const std::string sha256 = DecodeHex("3031300d060960864801650304020105000420");
  const std::string sha256_without_null = DecodeHex("302f300b06096086480165030402010420");
  const std::string sha512 = DecodeHex("3051300d060960864801650304020305000440");
  const std::string sha1 = DecodeHex("3021300906052b0e03021a05000414");
  const std::string long_lengths = DecodeHex("308131300d060960864801650304020105000420");

  CHECK(Verifies(signer, signer.Sign(kInput)));
  CHECK(Verifies(signer, signer.RawRsa(Block(start, zero, sha256, hash))));

  struct Row {
    std::string_view flaw;
    std::string block;
  };
  const Row rows[] = {
      {"block type 2", Block(DecodeHex("0002"), zero, sha256, hash)},
      {"block type 0", Block(DecodeHex("0000"), zero, sha256, hash)},
      {"no separator", Block(start, DecodeHex("ff"), sha256, hash)},
      {"another byte in the padding", Block(DecodeHex("0001fe"), zero, sha256, hash)},
      {"no digest info", Block(start, zero, "", hash)},
      {"digest info without NULL", Block(start, zero, sha256_without_null, hash)},
      {"lengths in the long form", Block(start, zero, long_lengths, hash)},
      {"the digest info of SHA-512", Block(start, zero, sha512, hash + hash)},
      {"SHA-1", Block(start, zero, sha1, hash.substr(0, 20))},
      {"a hash of something else", Block(start, zero, sha256, Sha256("other"))},
      {"a byte after the hash", Block(start, zero, sha256, hash, "x")},
      {"garbage after the hash, eight bytes of padding (Bleichenbacher 2006)",
       start + std::string(8, '\xff') + zero + sha256 + hash +
           std::string(256 - 2 - 8 - 1 - 19 - 32, 'x')},
      {"the hash alone", std::string(224, '\0') + hash},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    REQUIRE(row.block.size() == 256);
    CHECK_FALSE(Verifies(signer, signer.RawRsa(row.block)));
  }
  CHECK_FALSE(Verifies(signer, signer.SignPss(kInput)));
}

TEST_CASE("an Ed25519 signature whose S is not reduced is refused") {
  const Signer& signer = Signer::Of(Algorithm::kEdDsa);
  std::string signature = signer.Sign(kInput);
  REQUIRE(Verifies(signer, signature));
  // S + L, where L is the group's order (RFC 8032 section 5.1), little-endian.
  const std::string order =
      DecodeHex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
  int carry = 0;
  for (size_t i = 0; i < 32; ++i) {
    const int sum = static_cast<unsigned char>(signature[32 + i]) +
                    static_cast<unsigned char>(order[i]) + carry;
    signature[32 + i] = static_cast<char>(sum & 0xFF);
    carry = sum >> 8;
  }
  CHECK_FALSE(Verifies(signer, signature));
}

}  // namespace
}  // namespace keys
