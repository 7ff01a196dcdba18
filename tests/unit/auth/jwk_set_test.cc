#include "handler/auth/jwk_set.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

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

// The problems, "skipped: …" for each key that is, and "1 key" or the like.
std::string Load(const std::string& text) {
  const LoadedKeys loaded = JwkSet::Load(text, std::nullopt);
  std::string said;
  for (const std::string& problem : loaded.problems) said += problem + "\n";
  for (const std::string& skipped : loaded.skipped) said += "skipped: " + skipped + "\n";
  CHECK((loaded.set != nullptr) == loaded.problems.empty());
  return loaded.set ? said + std::to_string(loaded.set->size()) + " key" : said;
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
  CHECK(Load(SetOf(Hs().Jwk("1") + "," + Es().Jwk("2") + "," + Rs().Jwk("3") + "," +
                   Ed().Jwk("4"))) == "4 key");
  CHECK(Load(R"({"other":[{"kty":"RSA"}],"keys":[)" + Es().Jwk("k") +
             R"(],"more":{"keys":[{"kid":"k"}]}})") == "1 key");
}

// The key is skipped for this reason, by its name 'k', and another one loads all the same.
void CheckSkipped(std::string_view what, const std::string& jwk, const std::string& reason) {
  CAPTURE(what);
  const LoadedKeys loaded = JwkSet::Load(SetOf(jwk + "," + Es().Jwk("control")), std::nullopt);
  REQUIRE(loaded.set != nullptr);
  CHECK(loaded.set->size() == 1);
  REQUIRE(loaded.skipped.size() == 1);
  CAPTURE(loaded.skipped[0]);
  CHECK(loaded.skipped[0].starts_with("key 'k': "));
  CHECK(loaded.skipped[0].find(reason) != std::string::npos);
  // Alone it leaves no key: refused, the reason beside.
  const LoadedKeys alone = JwkSet::Load(SetOf(jwk), std::nullopt);
  CHECK(alone.set == nullptr);
  CHECK(alone.problems == std::vector<std::string>{"no key that verifies session tokens"});
  CHECK(alone.skipped == loaded.skipped);
}

TEST_CASE("keys that are not ours are skipped, and the others load") {
  struct Row {
    std::string_view what;
    std::string jwk;
    std::string reason;
  };
  const Row rows[] = {
      {"unknown kty", R"({"kid":"k","kty":"AKP","alg":"ML-DSA-44","pub":"x"})",
       "unsupported kty 'AKP'"},
      {"kty in small letters", R"({"kid":"k","kty":"rsa","n":"x","e":"y"})",
       "unsupported kty 'rsa'"},
      {"unknown kty with a member called d", R"({"kid":"k","kty":"new","d":"x"})",
       "unsupported kty 'new'"},
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
  for (const Row& row : rows) CheckSkipped(row.what, row.jwk, row.reason);
}

TEST_CASE("keys that are wrong are skipped with the reason, and the others load") {
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
      {"rsa_e_padded", With(rs, "AQAB", "AQAB===="), "e is not strict base64url"},
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
      {"ec_without_crv", With(es, "\"crv\"", "\"cvr\""), "unsupported kty"},
      {"ec_private", With(es, "}", R"(,"d":"AA"})"), "private member d"},
      {"okp_31_bytes", OfHex(ed, "x", Repeated("01", 31)), "32 bytes"},
      {"okp_without_crv", With(ed, "\"crv\"", "\"cvr\""), "unsupported kty"},
      {"okp_private", With(ed, "}", R"(,"d":"AA"})"), "private member d"},
      {"oct_31_bytes_too_short", OfHex(hs, "k", Repeated("41", 31)), "31 bytes"},
      {"oct_empty", OfHex(hs, "k", ""), "0 bytes"},
      {"oct_4097_bytes", OfHex(hs, "k", Repeated("41", 4097)), "4097 bytes"},
      {"oct_without_k", With(hs, "\"k\":", "\"l\":"), "k is missing"},
      {"oct_standard_base64", WithBytes(hs, "k", std::string(33, '\xff')).replace(30, 1, "+"),
       "k is not strict base64url"},
      {"rsa_says_ES256", Rs().Jwk("k", R"(,"alg":"ES256")"), "unsupported"},
      {"rsa_says_HS256", Rs().Jwk("k", R"(,"alg":"HS256")"), "unsupported"},
      {"rsa_says_EdDSA", Rs().Jwk("k", R"(,"alg":"EdDSA")"), "unsupported"},
      {"ec_says_RS256", Es().Jwk("k", R"(,"alg":"RS256")"), "unsupported"},
      {"ec_says_HS256", Es().Jwk("k", R"(,"alg":"HS256")"), "unsupported"},
      {"ec_p256_says_ES384", Es().Jwk("k", R"(,"alg":"ES384")"), "unsupported"},
      {"ec_p384_says_ES256", With(Es().Jwk("k", R"(,"alg":"ES256")"), "P-256", "P-384"),
       "unsupported"},
      {"ec_on_ed25519", With(es, "P-256", "Ed25519"), "unsupported"},
      {"okp_on_p256", With(ed, "Ed25519", "P-256"), "unsupported"},
      {"okp_says_ES256", Ed().Jwk("k", R"(,"alg":"ES256")"), "unsupported"},
      {"okp_x25519_says_EdDSA", With(Ed().Jwk("k", R"(,"alg":"EdDSA")"), "Ed25519", "X25519"),
       "unsupported"},
      {"oct_says_RS256", Hs().Jwk("k", R"(,"alg":"RS256")"), "unsupported"},
      {"a_member_twice", With(es, "}", R"(,"kty":"RSA"})"), "two members have one name"},
      {"kty_missing", R"({"kid":"k","n":"AA"})", "kty is missing"},
      {"kty_is_a_number", R"({"kid":"k","kty":5})", "kty is not a string"},
      {"alg_is_null", With(es, "}", R"(,"alg":null})"), "alg is not a string"},
      {"use_is_an_array", With(es, "}", R"(,"use":["sig"]})"), "use is not a string"},
      {"key_ops_is_a_string", With(es, "}", R"(,"key_ops":"verify"})"), "key_ops lacks"},
      {"key_ops_holds_a_number", With(es, "}", R"(,"key_ops":[1]})"), "key_ops lacks"},
  };
  for (const Row& row : rows) CheckSkipped(row.flaw, row.jwk, row.reason);
}

TEST_CASE("different keys of one kid are skipped, all of them; the same key twice is one") {
  const std::string first = Es().Jwk("same"), control = Es().Jwk("control");
  const std::string other = Signer::Of(Algorithm::kEs256, 1).Jwk("same");
  CHECK(Load(SetOf(first + "," + Rs().Jwk("other"))) == "2 key");
  CHECK(Load(SetOf(Es().Jwk("") + "," + Signer::Of(Algorithm::kEs256, 1).Jwk(""))) == "2 key");
  const std::string skipped = "skipped: key 'same': another key has the same kid\n";
  CHECK(Load(SetOf(first + "," + other + "," + control)) == skipped + skipped + "1 key");
  CHECK(Load(SetOf(first + "," + Rs().Jwk("same") + "," + control)) == skipped + skipped + "1 key");
  CHECK(Load(SetOf(first + "," + other + "," + Rs().Jwk("same") + "," + control)) ==
        skipped + skipped + skipped + "1 key");
  CHECK(Load(SetOf(first + "," + other)) ==
        "no key that verifies session tokens\n" + skipped + skipped);
  CHECK(Load(SetOf(first + "," + With(Rs().Jwk("same"), "same", "\\u0073ame") + "," + control)) ==
        skipped + skipped + "1 key");

  CHECK(Load(SetOf(first + "," + first)) == "1 key");
  CHECK(Load(SetOf(first + "," + Es().Jwk("same", R"(,"use":"sig","alg":"ES256")"))) == "1 key");
  CHECK(Load(SetOf(Es().Jwk("") + "," + Es().Jwk(""))) == "1 key");
  CHECK(Load(SetOf(first + "," + Es().Jwk("another name of it"))) == "2 key");
  // A key that is skipped for another reason takes no kid away.
  CHECK(Load(SetOf(first + "," + Rs().Jwk("same", R"(,"use":"enc")"))) ==
        "skipped: key 'same': use is 'enc', not 'sig'\n1 key");
}

TEST_CASE("every skipped key is listed, and keys without a name are numbered") {
  const std::string said =
      Load(SetOf(OfHex(Hs().Jwk("a"), "k", "41") + "," + Es().Jwk("fine") + "," +
                 OfHex(Rs().Jwk(""), "e", "01") + R"(,{"kid":5,"kty":"RSA"},{"kty":"new"},null)"));
  CHECK(said ==
        "skipped: key 'a': the secret has 1 bytes, not 32 to 4096\n"
        "skipped: key 3: the RSA exponent is even, under 3 or over 64 bits\n"
        "skipped: key 4: kid is not a string\n"
        "skipped: key 5: unsupported kty 'new'\n"
        "skipped: key 6: it is not an object\n"
        "1 key");
}

TEST_CASE("a set without a usable key is refused, unless there is the legacy secret") {
  const std::string secret = "the legacy secret of this project, raw";
  for (const std::string& text : {SetOf(""), SetOf(R"({"kty":"new"})")}) {
    CAPTURE(text);
    CHECK(JwkSet::Load(text, std::nullopt).set == nullptr);
    const LoadedKeys loaded = JwkSet::Load(text, secret);
    REQUIRE(loaded.set != nullptr);
    CHECK(loaded.set->size() == 1);
  }
  CHECK(JwkSet::Load(SetOf(""), secret).skipped.empty());
  CHECK(JwkSet::Load(std::nullopt, std::nullopt).set == nullptr);
}

TEST_CASE("a text that is no JWK set within bounds is refused") {
  const std::string key = Es().Jwk("k");
  CHECK(Load(SetOf(key)) == "1 key");
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("[]"), std::string("null"),
        std::string("not JSON"), "[" + key + "]", key, std::string(R"({"keys":{}})"),
        std::string(R"({"keys":null})"), std::string(R"({"keys":"x"})"),
        std::string(R"({"Keys":[]})"), SetOf(key) + "x", SetOf(key).substr(0, 60), SetOf(key + ","),
        R"({"keys":[],"keys":[)" + key + "]}", SetOf(With(key, "}", ",\"q\":\"\xff\"}")),
        SetOf(With(key, "}", ",\"q\":" + Repeated("[", 40) + Repeated("]", 40) + "}")),
        SetOf(key) + std::string("\0", 1)}) {
    CAPTURE(text);
    const LoadedKeys loaded = JwkSet::Load(text, std::nullopt);
    CHECK(loaded.set == nullptr);
    CHECK(loaded.problems.size() == 1);
  }
}

TEST_CASE("the size of a set and the number of its keys are bounded") {
  std::string keys = Es().Jwk("k");
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
  const auto first = JwkSet::Load(SetOf(Es().Jwk("k")), std::nullopt).set;
  const auto second = JwkSet::Load(SetOf(Es().Jwk("k")), std::nullopt).set;
  CHECK(first->generation() != second->generation());
}

// The table in jwk_set.h, each cell.
TEST_CASE("kid x header alg -> how many keys are tried, or the refusal") {
  const auto two = [](const std::string& first_kid, const std::string& second_kid) {
    std::string keys;
    for (const Algorithm algorithm :
         {Algorithm::kHs256, Algorithm::kEs256, Algorithm::kRs256, Algorithm::kEdDsa}) {
      if (!keys.empty()) keys += ",";
      const std::string alg(NameOf(algorithm));
      keys += Signer::Of(algorithm, 0).Jwk(first_kid.empty() ? "" : alg + first_kid);
      keys += "," + Signer::Of(algorithm, 1).Jwk(second_kid.empty() ? "" : alg + second_kid);
    }
    return SetOf(keys);
  };
  const std::string secret = "the legacy secret of this project, raw";
  struct Set {
    std::string_view what;
    std::unique_ptr<const JwkSet> set;
  };
  const Set sets[] = {
      {"two of each, named", JwkSet::Load(two("1", "2"), std::nullopt).set},
      {"the same and the secret", JwkSet::Load(two("1", "2"), secret).set},
      {"one named and one without a kid", JwkSet::Load(two("1", ""), std::nullopt).set},
      {"the same and the secret", JwkSet::Load(two("1", ""), secret).set},
      {"the secret alone", JwkSet::Load(std::nullopt, secret).set},
  };
  const auto find = [](const JwkSet& set, std::optional<std::string_view> kid,
                       std::string_view alg) -> std::string {
    const auto found = set.Find(kid, alg);
    if (const auto* const refusal = std::get_if<TokenRefusal>(&found)) {
      return std::string(Describe(*refusal));
    }
    const auto& keys = std::get<JwkSet::Candidates>(found);
    for (const VerificationKey* const key : keys) CHECK(NameOf(key->algorithm()) == alg);
    return std::to_string(keys.size());
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
  const Row rows[] = {
      // A key of that algorithm; of another one.
      {"HS2561", "HS256", {"1", "1", "1", "1", "1"}},
      {"HS2561", "ES256", {mismatch, mismatch, mismatch, mismatch, unknown}},
      {"ES2561", "HS256", {mismatch, mismatch, mismatch, mismatch, "1"}},
      {"ES2561", "ES256", {"1", "1", "1", "1", unknown}},
      {"ES2561", "RS256", {mismatch, mismatch, mismatch, mismatch, unknown}},
      {"RS2561", "HS256", {mismatch, mismatch, mismatch, mismatch, "1"}},
      {"RS2561", "RS256", {"1", "1", "1", "1", unknown}},
      {"RS2561", "EdDSA", {mismatch, mismatch, mismatch, mismatch, unknown}},
      {"EdDSA1", "HS256", {mismatch, mismatch, mismatch, mismatch, "1"}},
      {"EdDSA1", "EdDSA", {"1", "1", "1", "1", unknown}},
      // A kid of no key: those without one, the secret among them.
      {"other", "HS256", {unknown, "1", "1", "2", "1"}},
      {"other", "ES256", {unknown, unknown, "1", "1", unknown}},
      {"other", "RS256", {unknown, unknown, "1", "1", unknown}},
      {"other", "EdDSA", {unknown, unknown, "1", "1", unknown}},
      {"hs2561", "HS256", {unknown, "1", "1", "2", "1"}},
      {"", "ES256", {unknown, unknown, "1", "1", unknown}},
      // No kid: all of that algorithm.
      {none, "HS256", {"2", "3", "2", "3", "1"}},
      {none, "ES256", {"2", "2", "2", "2", unknown}},
      {none, "RS256", {"2", "2", "2", "2", unknown}},
      {none, "EdDSA", {"2", "2", "2", "2", unknown}},
      // Another alg, whatever the kid.
      {"RS2561", "none", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"RS2561", "", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"RS2561", "PS256", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"RS2561", "rs256", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
      {"HS2561", "HS512", {bad_alg, bad_alg, bad_alg, bad_alg, bad_alg}},
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

TEST_CASE("no token is tried with more than four keys, the secret and those without a kid first") {
  std::string keys;
  for (int i = 0; i < 6; ++i) {
    keys += (i == 0 ? "" : ",") +
            Signer::Of(Algorithm::kHs256, i).Jwk(i < 3 ? "hs" + std::to_string(i) : "");
  }
  const std::string secret = "the legacy secret of this project, raw";
  const auto set = JwkSet::Load(SetOf(keys), secret).set;
  const auto verifies = [&](std::optional<std::string_view> kid, const std::string& with) {
    const auto found = set->Find(kid, "HS256");
    const auto& candidates = std::get<JwkSet::Candidates>(found);
    CHECK(candidates.size() <= kMaxTriedKeys);
    return std::any_of(candidates.begin(), candidates.end(), [&](const VerificationKey* key) {
      return key->Verify("input", test::HmacSha256(with, "input"));
    });
  };
  CHECK(verifies(std::nullopt, secret));
  CHECK(verifies("any", secret));
  for (int i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(verifies(std::nullopt, Signer::Of(Algorithm::kHs256, i).secret()) == (i >= 3));
    CHECK(verifies("any", Signer::Of(Algorithm::kHs256, i).secret()) == (i >= 3));
  }
}

}  // namespace
}  // namespace keys
