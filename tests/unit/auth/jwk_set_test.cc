#include "handler/auth/jwk_set.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

using test::Signer;

const Signer& Hs() {
  return Signer::Of(Algorithm::kHs256);
}
const Signer& Es() {
  return Signer::Of(Algorithm::kEs256);
}
const Signer& Rs() {
  return Signer::Of(Algorithm::kRs256);
}
const Signer& Ed() {
  return Signer::Of(Algorithm::kEdDsa);
}

std::string SetOf(const std::string& keys) {
  return "{\"keys\":[" + keys + "]}";
}

// "1 key" or the like when it loads, "skipped: …" when it loads without the key, else the problems.
std::string Load(const std::string& text) {
  const LoadedKeys loaded = JwkSet::Load(text, std::nullopt);
  std::string said;
  for (const std::string& problem : loaded.problems) said += problem + "\n";
  for (const std::string& skipped : loaded.skipped) said += "skipped: " + skipped + "\n";
  CHECK((loaded.set != nullptr) == loaded.problems.empty());
  return said.empty() ? std::to_string(loaded.set->size()) + " key" : said;
}

std::string With(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// The JWK with one string member set to these bytes, encoded.
std::string WithBytes(const std::string& jwk, const std::string& member, const std::string& bytes) {
  const std::string start = "\"" + member + "\":\"";
  const size_t at = jwk.find(start) + start.size();
  return jwk.substr(0, at) + test::EncodeBase64url(bytes) + jwk.substr(jwk.find('"', at));
}

std::string OfHex(const std::string& jwk, const std::string& member, const std::string& hex) {
  return WithBytes(jwk, member, test::DecodeHex(hex));
}

std::string Repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST_CASE("each key that is sound loads, named or not, with and without alg, use and key_ops") {
  for (const Signer* signer : {&Hs(), &Es(), &Rs(), &Ed()}) {
    const std::string alg(NameOf(signer->algorithm()));
    CAPTURE(alg);
    for (const std::string& more :
         {std::string(), ",\"alg\":\"" + alg + "\"", std::string(R"(,"use":"sig")"),
          std::string(R"(,"key_ops":["verify"])"), std::string(R"(,"key_ops":["sign","verify"])"),
          R"(,"use":"sig","key_ops":["verify"],"ext":true,"x5c":["no"],"alg":")" + alg + "\""}) {
      CAPTURE(more);
      CHECK(Load(SetOf(signer->Jwk("k", more))) == "1 key");
      CHECK(Load(SetOf(signer->Jwk("", more))) == "1 key");
    }
  }
  CHECK(Load(SetOf("")) == "0 key");
  CHECK(Load(SetOf(Hs().Jwk("1") + "," + Es().Jwk("2") + "," + Rs().Jwk("3") + "," +
                   Ed().Jwk("4"))) == "4 key");
  CHECK(Load(R"({"other":[{"kty":"RSA"}],"keys":[)" + Es().Jwk("k") +
             R"(],"more":{"keys":[{"kid":"k"}]}})") == "1 key");
}

TEST_CASE("keys that are not ours are skipped, and the others load") {
  struct Row {
    std::string_view what;
    std::string jwk;
    std::string reason;
  };
  const Row rows[] = {
      {"unknown kty", R"({"kid":"k","kty":"AKP","alg":"ML-DSA-44","pub":"x"})", "kty 'AKP'"},
      {"kty in small letters", R"({"kid":"k","kty":"rsa","n":"x","e":"y"})", "kty 'rsa'"},
      {"unknown kty with a member called d", R"({"kid":"k","kty":"new","d":"x"})", "kty 'new'"},
      {"P-384", R"({"kid":"k","kty":"EC","crv":"P-384","alg":"ES384","x":"AA","y":"AA"})",
       "crv 'P-384'"},
      {"secp256k1", R"({"kid":"k","kty":"EC","crv":"secp256k1","x":"AA","y":"AA"})",
       "crv 'secp256k1'"},
      {"Ed448", R"({"kid":"k","kty":"OKP","crv":"Ed448","alg":"EdDSA","x":"AA"})", "crv 'Ed448'"},
      {"X25519", R"({"kid":"k","kty":"OKP","crv":"X25519","x":"AA"})", "crv 'X25519'"},
      {"unknown crv", R"({"kid":"k","kty":"EC","crv":"P-999","x":"AA","y":"AA"})", "crv 'P-999'"},
      {"RS512", Rs().Jwk("k", R"(,"alg":"RS512")"), "alg 'RS512'"},
      {"PS256", Rs().Jwk("k", R"(,"alg":"PS256")"), "alg 'PS256'"},
      {"RSA-OAEP", Rs().Jwk("k", R"(,"alg":"RSA-OAEP")"), "alg 'RSA-OAEP'"},
      {"HS512", Hs().Jwk("k", R"(,"alg":"HS512")"), "alg 'HS512'"},
      {"ECDH-ES", Es().Jwk("k", R"(,"alg":"ECDH-ES")"), "alg 'ECDH-ES'"},
      {"none", Rs().Jwk("k", R"(,"alg":"none")"), "alg 'none'"},
      {"use enc", Rs().Jwk("k", R"(,"use":"enc")"), "use is 'enc'"},
      {"use SIG", Rs().Jwk("k", R"(,"use":"SIG")"), "use is 'SIG'"},
      {"use empty", Rs().Jwk("k", R"(,"use":"")"), "use is ''"},
      {"key_ops empty", Es().Jwk("k", R"(,"key_ops":[])"), "key_ops lacks 'verify'"},
      {"key_ops sign", Es().Jwk("k", R"(,"key_ops":["sign"])"), "key_ops lacks 'verify'"},
      {"key_ops encrypt", Hs().Jwk("k", R"(,"key_ops":["encrypt","VERIFY"])"),
       "key_ops lacks 'verify'"},
      {"use sig, but key_ops without verify",
       Ed().Jwk("k", R"(,"use":"sig","key_ops":["deriveBits"])"), "key_ops lacks 'verify'"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const LoadedKeys loaded =
        JwkSet::Load(SetOf(row.jwk + "," + Es().Jwk("control")), std::nullopt);
    REQUIRE(loaded.set != nullptr);
    CHECK(loaded.set->size() == 1);
    REQUIRE(loaded.skipped.size() == 1);
    CHECK(loaded.skipped[0].starts_with("key 'k': "));
    CHECK(loaded.skipped[0].find(row.reason) != std::string::npos);
  }
}

TEST_CASE("a key that is wrong refuses the set, with the reason and its name") {
  const std::string rs = Rs().Jwk("k"), es = Es().Jwk("k"), ed = Ed().Jwk("k"), hs = Hs().Jwk("k");
  const std::string ff128 = Repeated("ff", 128), ff256 = Repeated("ff", 256);
  const std::string zero32 = Repeated("00", 32), ff32 = Repeated("ff", 32);
  // The base point of P-256 (SEC 2 section 2.4.2), and the same with the last bit of y changed.
  const std::string gx = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
  const std::string gy = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
  const std::string off = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f4";
  CHECK(Load(SetOf(OfHex(OfHex(es, "x", gx), "y", gy))) == "1 key");
  CHECK(Load(SetOf(OfHex(hs, "k", zero32))) == "1 key");
  CHECK(Load(SetOf(OfHex(rs, "e", "03"))) == "1 key");
  CHECK(Load(SetOf(OfHex(rs, "e", "00010001"))) == "1 key");

  struct Row {
    std::string_view flaw;
    std::string jwk;
    std::string reason;
  };
  const Row rows[] = {
      {"rsa_1024_too_small", OfHex(rs, "n", ff128), "1024 bits"},
      {"rsa_2047_too_small", OfHex(rs, "n", "7f" + ff256.substr(2)), "2047 bits"},
      {"rsa_2048_with_zeros_before_1024", OfHex(rs, "n", Repeated("00", 128) + ff128), "1024 bits"},
      {"rsa_8193_too_large", OfHex(rs, "n", "01" + Repeated("ff", 1024)), "8193 bits"},
      {"rsa_huge", OfHex(rs, "n", Repeated("ff", 4000)), "over 8192 bits"},
      {"rsa_empty_modulus", OfHex(rs, "n", ""), "0 bits"},
      {"rsa_even_modulus", OfHex(rs, "n", ff256.substr(0, 510) + "fe"), "modulus is even"},
      {"rsa_modulus_with_a_small_factor", OfHex(rs, "n", ff256), "small factor"},
      {"rsa_exponent_0", OfHex(rs, "e", "00"), "exponent"},
      {"rsa_exponent_1", OfHex(rs, "e", "01"), "exponent"},
      {"rsa_exponent_1_with_zeros", OfHex(rs, "e", "000001"), "exponent"},
      {"rsa_exponent_2", OfHex(rs, "e", "02"), "exponent"},
      {"rsa_exponent_even", OfHex(rs, "e", "010000"), "exponent"},
      {"rsa_exponent_65_bits", OfHex(rs, "e", "010000000000000001"), "exponent"},
      {"rsa_exponent_empty", OfHex(rs, "e", ""), "exponent"},
      {"rsa_without_n", With(rs, "\"n\"", "\"m\""), "n is missing"},
      {"rsa_without_e", With(rs, "\"e\"", "\"f\""), "e is missing"},
      {"rsa_n_padded", With(rs, "AQAB", "AQAB===="), "e is not strict base64url"},
      {"rsa_e_is_a_number", With(rs, "\"AQAB\"", "65537"), "e is not a string"},
      {"rsa_private", With(rs, "}", R"(,"d":"AQAB"})"), "private member d"},
      {"rsa_private_crt_only", With(rs, "}", R"(,"qi":"AQAB"})"), "private member qi"},
      {"rsa_private_oth", With(rs, "}", R"(,"oth":[]})"), "private member oth"},
      {"rsa_private_for_encryption", With(rs, "}", R"(,"use":"enc","d":"AQAB"})"),
       "private member d"},
      {"ec_point_off_the_curve", OfHex(OfHex(es, "x", gx), "y", off), "not on P-256"},
      {"ec_point_zero", OfHex(OfHex(es, "x", zero32), "y", zero32), "not on P-256"},
      {"ec_point_above_p", OfHex(OfHex(es, "x", ff32), "y", ff32), "not on P-256"},
      {"ec_x_one_byte_short", OfHex(es, "x", gx.substr(2)), "32 bytes"},
      {"ec_x_one_byte_long", OfHex(es, "x", "00" + gx), "32 bytes"},
      {"ec_y_empty", OfHex(es, "y", ""), "32 bytes"},
      {"ec_without_y", With(es, "\"y\"", "\"z\""), "y is missing"},
      {"ec_without_crv", With(es, "\"crv\"", "\"cvr\""), "crv is missing"},
      {"ec_private", With(es, "}", R"(,"d":"AA"})"), "private member d"},
      {"okp_31_bytes", OfHex(ed, "x", Repeated("01", 31)), "32 bytes"},
      {"okp_off_the_curve", OfHex(ed, "x", "02" + Repeated("00", 31)), "not a point of Ed25519"},
      {"okp_small_order", OfHex(ed, "x", "01" + Repeated("00", 31)), "small order"},
      {"okp_not_canonical", OfHex(ed, "x", ff32), "not a point of Ed25519"},
      {"okp_without_crv", With(ed, "\"crv\"", "\"cvr\""), "crv is missing"},
      {"okp_private", With(ed, "}", R"(,"d":"AA"})"), "private member d"},
      {"oct_31_bytes_too_short", OfHex(hs, "k", Repeated("41", 31)), "31 bytes"},
      {"oct_empty", OfHex(hs, "k", ""), "0 bytes"},
      {"oct_4097_bytes", OfHex(hs, "k", Repeated("41", 4097)), "4097 bytes"},
      {"oct_without_k", With(hs, "\"k\":", "\"l\":"), "k is missing"},
      {"oct_standard_base64", WithBytes(hs, "k", std::string(33, '\xff')).replace(30, 1, "+"),
       "k is not strict base64url"},
      {"rsa_says_ES256", Rs().Jwk("k", R"(,"alg":"ES256")"), "disagree"},
      {"rsa_says_HS256", Rs().Jwk("k", R"(,"alg":"HS256")"), "disagree"},
      {"rsa_says_EdDSA", Rs().Jwk("k", R"(,"alg":"EdDSA")"), "disagree"},
      {"ec_says_RS256", Es().Jwk("k", R"(,"alg":"RS256")"), "disagree"},
      {"ec_says_HS256", Es().Jwk("k", R"(,"alg":"HS256")"), "disagree"},
      {"ec_p256_says_ES384", Es().Jwk("k", R"(,"alg":"ES384")"), "disagree"},
      {"ec_p384_says_ES256", With(Es().Jwk("k", R"(,"alg":"ES256")"), "P-256", "P-384"),
       "disagree"},
      {"ec_on_ed25519", With(es, "P-256", "Ed25519"), "disagree"},
      {"okp_on_p256", With(ed, "Ed25519", "P-256"), "disagree"},
      {"okp_says_ES256", Ed().Jwk("k", R"(,"alg":"ES256")"), "disagree"},
      {"okp_x25519_says_EdDSA", With(Ed().Jwk("k", R"(,"alg":"EdDSA")"), "Ed25519", "X25519"),
       "disagree"},
      {"oct_says_RS256", Hs().Jwk("k", R"(,"alg":"RS256")"), "disagree"},
      {"kty_missing", R"({"kid":"k","n":"AA"})", "kty is missing"},
      {"kty_is_a_number", R"({"kid":"k","kty":5})", "kty is not a string"},
      {"alg_is_null", With(es, "}", R"(,"alg":null})"), "alg is not a string"},
      {"use_is_an_array", With(es, "}", R"(,"use":["sig"]})"), "use is not a string"},
      {"key_ops_is_a_string", With(es, "}", R"(,"key_ops":"verify"})"), "key_ops is not"},
      {"key_ops_holds_a_number", With(es, "}", R"(,"key_ops":["verify",1]})"), "key_ops is not"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    const LoadedKeys loaded =
        JwkSet::Load(SetOf(row.jwk + "," + Es().Jwk("control")), std::nullopt);
    CHECK(loaded.set == nullptr);
    REQUIRE(loaded.problems.size() == 1);
    CAPTURE(loaded.problems[0]);
    CHECK(loaded.problems[0].starts_with("key 'k': "));
    CHECK(loaded.problems[0].find(row.reason) != std::string::npos);
  }
}

TEST_CASE("two keys of one kid refuse the set, whatever they are") {
  const std::string first = Es().Jwk("same");
  CHECK(Load(SetOf(first + "," + Rs().Jwk("other"))) == "2 key");
  CHECK(Load(SetOf(Es().Jwk("") + "," + Signer::Of(Algorithm::kEs256, 1).Jwk(""))) == "2 key");
  const std::string reason = "key 'same': another key has the same kid\n";
  CHECK(Load(SetOf(first + "," + Rs().Jwk("same"))) == reason);
  CHECK(Load(SetOf(first + "," + first)) == reason);
  CHECK(Load(SetOf(first + "," + With(Rs().Jwk("same"), "same", "\\u0073ame"))) == reason);
  CHECK(Load(SetOf(first + "," + Rs().Jwk("same", R"(,"use":"enc")"))).starts_with(reason));
}

TEST_CASE("every problem is listed, and keys without a name are numbered") {
  const std::string said =
      Load(SetOf(OfHex(Hs().Jwk("a"), "k", "41") + "," + Es().Jwk("fine") + "," +
                 OfHex(Rs().Jwk(""), "e", "01") + R"(,{"kid":5,"kty":"RSA"},{"kty":"new"})"));
  CHECK(said ==
        "key 'a': the secret has 1 bytes, not 32 to 4096\n"
        "key 3: the RSA exponent is even, under 3 or over 64 bits\n"
        "key 4: kid is not a string\n"
        "skipped: key 5: kty 'new' is none of ours\n");
}

TEST_CASE("a text that is no JWK set within bounds is refused") {
  const std::string key = Es().Jwk("k");
  CHECK(Load(SetOf(key)) == "1 key");
  for (const std::string& text :
       {std::string(),
        std::string("{}"),
        std::string("[]"),
        std::string("null"),
        std::string("not JSON"),
        "[" + key + "]",
        key,
        std::string(R"({"keys":{}})"),
        std::string(R"({"keys":null})"),
        std::string(R"({"keys":"x"})"),
        std::string(R"({"Keys":[]})"),
        SetOf("5"),
        SetOf("[]"),
        SetOf("null"),
        SetOf(key) + "x",
        SetOf(key).substr(0, 60),
        SetOf(key + ","),
        R"({"keys":[],"keys":[)" + key + "]}",
        SetOf(With(key, "}", R"(,"kty":"RSA"})")),
        SetOf(With(key, "}", ",\"q\":\"\xff\"}")),
        SetOf(With(key, "}", ",\"q\":" + Repeated("[", 40) + Repeated("]", 40) + "}")),
        SetOf(key) + std::string("\0", 1)}) {
    CAPTURE(text);
    const LoadedKeys loaded = JwkSet::Load(text, std::nullopt);
    CHECK(loaded.set == nullptr);
    CHECK(loaded.problems.size() == 1);
  }
}

TEST_CASE("the size of a set and the number of its keys are bounded") {
  std::string keys = R"({"kty":"new"})";
  for (size_t i = 1; i < kMaxKeys; ++i) keys += R"(,{"kty":"new"})";
  CHECK(JwkSet::Load(SetOf(keys), std::nullopt).set != nullptr);
  CHECK(JwkSet::Load(SetOf(keys + R"(,{"kty":"new"})"), std::nullopt).set == nullptr);

  const std::string text = SetOf(Es().Jwk("k"));
  const std::string full = text + std::string(kMaxJwkSetLength - text.size(), ' ');
  CHECK(Load(full) == "1 key");
  CHECK(Load(full + " ") == "the JWK set has over 65536 bytes\n");
}

TEST_CASE("a kid of any length is shortened where it is shown, and never a secret") {
  const std::string said = Load(SetOf(OfHex(Hs().Jwk(std::string(5000, 'a')), "k", "41414141")));
  CHECK(said.size() < 200);
  CHECK(said.find("AAAA") == std::string::npos);
}

TEST_CASE("the legacy secret is 32 to 4096 raw bytes") {
  const auto load = [](size_t size) {
    return JwkSet::Load(std::nullopt, std::string(size, 'x')).problems;
  };
  CHECK(load(32).empty());
  CHECK(load(4096).empty());
  CHECK(load(31) ==
        std::vector<std::string>{"legacy secret: the secret has 31 bytes, not 32 to 4096"});
  CHECK(load(4097).size() == 1);
  CHECK(load(0).size() == 1);
}

TEST_CASE("no two sets have one generation") {
  const auto first = JwkSet::Load(SetOf(""), std::nullopt).set;
  const auto second = JwkSet::Load(SetOf(""), std::nullopt).set;
  CHECK(first->generation() != second->generation());
}

// The table in jwk_set.h, each cell.
TEST_CASE("key found by kid x header alg -> verdict") {
  const std::string all =
      Hs().Jwk("hs") + "," + Es().Jwk("es") + "," + Rs().Jwk("rs") + "," + Ed().Jwk("ed");
  const std::string twice = Signer::Of(Algorithm::kHs256, 1).Jwk("hs1") + "," +
                            Signer::Of(Algorithm::kEs256, 1).Jwk("es1") + "," +
                            Signer::Of(Algorithm::kRs256, 1).Jwk("rs1") + "," +
                            Signer::Of(Algorithm::kEdDsa, 1).Jwk("ed1");
  const std::string secret = "the legacy secret of this project, raw";
  struct Set {
    std::string_view what;
    std::unique_ptr<const JwkSet> set;
  };
  const Set sets[] = {
      {"one of each", JwkSet::Load(SetOf(all), std::nullopt).set},
      {"one of each and the secret", JwkSet::Load(SetOf(all), secret).set},
      {"two of each", JwkSet::Load(SetOf(all + "," + twice), std::nullopt).set},
      {"the secret alone", JwkSet::Load(std::nullopt, secret).set},
      {"nothing", JwkSet::Load(SetOf(""), std::nullopt).set},
  };
  const auto find = [](const JwkSet& set, std::optional<std::string_view> kid,
                       std::string_view alg) -> std::string {
    const auto found = set.Find(kid, alg);
    if (const auto* const refusal = std::get_if<TokenRefusal>(&found)) {
      return std::string(Describe(*refusal));
    }
    const auto* const key = std::get<const VerificationKey*>(found);
    CHECK(NameOf(key->algorithm()) == alg);
    return "key";
  };

  struct Row {
    std::optional<std::string_view> kid;
    std::string_view alg;
    std::string_view verdicts[5];  // by set
  };
  constexpr std::nullopt_t none = std::nullopt;
  const std::string_view bad_alg = "header_alg";
  const std::string_view unknown = "key_unknown";
  const std::string_view mismatch = "key_algorithm";
  const std::string_view ambiguous = "key_ambiguous";
  const Row rows[] = {
      // A key of that algorithm; of another one.
      {"hs", "HS256", {"key", "key", "key", "key", unknown}},
      {"hs", "ES256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"hs", "RS256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"hs", "EdDSA", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"es", "HS256", {mismatch, mismatch, mismatch, "key", unknown}},
      {"es", "ES256", {"key", "key", "key", unknown, unknown}},
      {"es", "RS256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"es", "EdDSA", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"rs", "HS256", {mismatch, mismatch, mismatch, "key", unknown}},
      {"rs", "ES256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"rs", "RS256", {"key", "key", "key", unknown, unknown}},
      {"rs", "EdDSA", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"ed", "HS256", {mismatch, mismatch, mismatch, "key", unknown}},
      {"ed", "ES256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"ed", "RS256", {mismatch, mismatch, mismatch, unknown, unknown}},
      {"ed", "EdDSA", {"key", "key", "key", unknown, unknown}},
      // A kid of no key: the legacy secret answers for HS256.
      {"other", "HS256", {unknown, "key", unknown, "key", unknown}},
      {"other", "ES256", {unknown, unknown, unknown, unknown, unknown}},
      {"other", "RS256", {unknown, unknown, unknown, unknown, unknown}},
      {"other", "EdDSA", {unknown, unknown, unknown, unknown, unknown}},
      {"HS", "HS256", {unknown, "key", unknown, "key", unknown}},
      {"", "ES256", {unknown, unknown, unknown, unknown, unknown}},
      // No kid.
      {none, "HS256", {"key", ambiguous, ambiguous, "key", unknown}},
      {none, "ES256", {"key", "key", ambiguous, unknown, unknown}},
      {none, "RS256", {"key", "key", ambiguous, unknown, unknown}},
      {none, "EdDSA", {"key", "key", ambiguous, unknown, unknown}},
      // Another alg, whatever the kid.
      {"rs", "none", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"rs", "", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"rs", "PS256", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"rs", "rs256", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"hs", "HS512", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"other", "none", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {none, "none", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {none, "HS256 ", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
  };
  for (const Row& row : rows) {
    for (size_t i = 0; i < 5; ++i) {
      CAPTURE(sets[i].what);
      CAPTURE(row.kid.value_or("(absent)"));
      CAPTURE(row.alg);
      CHECK(find(*sets[i].set, row.kid, row.alg) == row.verdicts[i]);
    }
  }
}

TEST_CASE("a key without a kid is found only by tokens without one") {
  const auto set = JwkSet::Load(SetOf(Es().Jwk("")), std::nullopt).set;
  CHECK(std::holds_alternative<const VerificationKey*>(set->Find(std::nullopt, "ES256")));
  CHECK(std::holds_alternative<TokenRefusal>(set->Find("", "ES256")));
  CHECK(std::holds_alternative<TokenRefusal>(set->Find("1", "ES256")));
}

}  // namespace
}  // namespace keys
