#include "handler/auth/jwt.h"

#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "tests/unit/auth/session_claims.h"
#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

using test::At;
using test::Describe;
using test::GoodClaims;
using test::JsonObject;
using test::kNow;
using test::kSession;
using test::kUser;
using test::Quoted;
using test::Signer;

const Algorithm kAlgorithms[] = {Algorithm::kHs256, Algorithm::kEs256, Algorithm::kRs256,
                                 Algorithm::kEdDsa};

std::string Kid(Algorithm algorithm) {
  return "kid-" + std::string(NameOf(algorithm));
}

std::unique_ptr<const JwkSet> SetOf(const std::string& keys) {
  LoadedKeys loaded = JwkSet::Load("{\"keys\":[" + keys + "]}", std::nullopt);
  REQUIRE(loaded.set != nullptr);
  return std::move(loaded.set);
}

// One key of each algorithm, named by Kid().
const JwkSet& Keys() {
  static const auto set = [] {
    std::string keys;
    for (const Algorithm algorithm : kAlgorithms) {
      keys += (keys.empty() ? "" : ",") + Signer::Of(algorithm).Jwk(Kid(algorithm));
    }
    return SetOf(keys);
  }();
  return *set;
}

JsonObject GoodHeader(Algorithm algorithm) {
  return {
      {"alg", Quoted(NameOf(algorithm))}, {"kid", Quoted(Kid(algorithm))}, {"typ", Quoted("JWT")}};
}

const std::string kGoodHeader = GoodHeader(Algorithm::kHs256).Text();

std::string Verify(std::string_view token, const JwkSet& keys = Keys(),
                   const TokenPolicy& policy = {}) {
  return Describe(VerifyToken(token, keys, policy, At(kNow)));
}

// A genuine token with this header or these claims.
std::string WithHeader(const std::string& header) {
  return Signer::Of(Algorithm::kHs256).Token(header, GoodClaims().Text());
}
std::string WithClaims(const std::string& claims) {
  return Signer::Of(Algorithm::kHs256).Token(kGoodHeader, claims);
}

TEST_CASE("a Supabase session of each algorithm is accepted, with its claims") {
  for (const Algorithm algorithm : kAlgorithms) {
    CAPTURE(NameOf(algorithm));
    const std::string claims = GoodClaims().Set("nbf", std::to_string(kNow - 5)).Text();
    const std::string token = Signer::Of(algorithm).Token(GoodHeader(algorithm).Text(), claims);
    const Verdict verdict = VerifyToken(token, Keys(), {}, At(kNow));
    REQUIRE(Describe(verdict) == "ok");
    const Claims& found = std::get<Claims>(verdict);
    CHECK(ToString(found.user) == kUser);
    CHECK(found.has_session);
    CHECK(ToString(found.session) == kSession);
    CHECK(found.expires_at == At(kNow + 3600));
    CHECK(found.not_before == At(kNow - 5));
  }
}

// Checks each row of a file: source, key, token, and the verdict.
int CheckVectors(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file.good());
  int rows = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream columns(line);
    std::string source, jwk, token, verdict;
    std::getline(columns, source, '\t');
    std::getline(columns, jwk, '\t');
    std::getline(columns, token, '\t');
    std::getline(columns, verdict, '\t');
    CAPTURE(source);
    const auto set = SetOf(jwk + "," + Signer::Of(Algorithm::kEs256, 1).Jwk("beside"));
    CHECK(Verify(token, *set) == verdict);
    ++rows;
    if (verdict == "header_alg") continue;
    // The control: one bit of the signature's first byte.
    std::string forged = token;
    char& letter = forged[forged.rfind('.') + 1];
    letter = letter == 'A' ? 'B' : 'A';
    CHECK(Verify(forged, *set) == "signature");
  }
  return rows;
}

TEST_CASE("published signatures verify: RFC 7515 A.1 to A.3, RFC 8037 A.4, RFC 7520 4.1 to 4.4") {
  CHECK(CheckVectors("tests/vectors/published.tsv") == 8);
}

TEST_CASE("tokens and keys of a foreign library verify: npm's jose") {
  CHECK(CheckVectors("tests/vectors/jose.tsv") == 4);
}

TEST_CASE("key type x header alg x kid: what each holder of one key could sign") {
  // The key named by the row signs; the header says what the columns say.
  for (const Algorithm signing : kAlgorithms) {
    for (const Algorithm said : kAlgorithms) {
      for (const Algorithm named : kAlgorithms) {
        CAPTURE(NameOf(signing));
        CAPTURE(NameOf(said));
        CAPTURE(Kid(named));
        const std::string header = GoodHeader(said).Set("kid", Quoted(Kid(named))).Text();
        const std::string token = Signer::Of(signing).Token(header, GoodClaims().Text());
        const std::string_view expected = said != named     ? "key_algorithm"
                                          : said != signing ? "signature"
                                                            : "ok";
        CHECK(Verify(token) == expected);
      }
      const std::string header = GoodHeader(said).Remove("kid").Text();
      const std::string token = Signer::Of(signing).Token(header, GoodClaims().Text());
      CHECK(Verify(token) == (said == signing ? "ok" : "signature"));
    }
  }
}

TEST_CASE("the legacy secret verifies tokens with a kid of Supabase's, and without") {
  const std::string& secret = Signer::Of(Algorithm::kHs256).secret();
  LoadedKeys loaded = JwkSet::Load(R"({"keys":[]})", secret);
  CHECK(loaded.skipped.empty());  // the set of every project without asymmetric keys
  const auto set = std::move(loaded.set);
  CHECK(Verify(WithHeader(R"({"alg":"HS256","typ":"JWT"})"), *set) == "ok");
  CHECK(Verify(WithHeader(R"({"alg":"HS256","kid":"5Hb8Vm/x","typ":"JWT"})"), *set) == "ok");
  const auto other = JwkSet::Load(std::nullopt, secret + "x").set;
  CHECK(Verify(WithHeader(R"({"alg":"HS256","typ":"JWT"})"), *other) == "signature");
}

TEST_CASE("Supabase's self-hosted set verifies beside the secret file and without it") {
  const Signer& legacy = Signer::Of(Algorithm::kHs256);
  const Signer& es = Signer::Of(Algorithm::kEs256);
  const std::string text = "{\"keys\":[" + es.Jwk("ec") + "," + legacy.Jwk("") + "]}";
  for (const bool with_file : {true, false}) {
    CAPTURE(with_file);
    const auto secret = with_file ? std::optional<std::string_view>(legacy.secret()) : std::nullopt;
    const LoadedKeys loaded = JwkSet::Load(text, secret);
    REQUIRE(loaded.set != nullptr);
    CHECK(loaded.skipped.empty());
    CHECK(loaded.set->size() == 2);
    CHECK(Verify(WithHeader(R"({"alg":"HS256","typ":"JWT"})"), *loaded.set) == "ok");
    CHECK(Verify(WithHeader(R"({"alg":"HS256","kid":"any"})"), *loaded.set) == "ok");
    const std::string header = R"({"alg":"ES256","kid":"ec"})";
    CHECK(Verify(es.Token(header, GoodClaims().Text()), *loaded.set) == "ok");
    CHECK(Verify(es.Token(R"({"alg":"ES256"})", GoodClaims().Text()), *loaded.set) == "ok");
    CHECK(Verify(es.Token(R"({"alg":"ES256","kid":"x"})", GoodClaims().Text()), *loaded.set) ==
          "key_unknown");
  }
}

TEST_CASE("without a kid every key of the algorithm is tried, four at most") {
  std::string keys;
  for (int i = 0; i < 5; ++i) {
    keys += (i == 0 ? "" : ",") + Signer::Of(Algorithm::kEs256, i).Jwk("es" + std::to_string(i));
  }
  const auto set = SetOf(keys);
  for (int i = 0; i < 5; ++i) {
    CAPTURE(i);
    const Signer& signer = Signer::Of(Algorithm::kEs256, i);
    CHECK(Verify(signer.Token(R"({"alg":"ES256"})", GoodClaims().Text()), *set) ==
          (i < 4 ? "ok" : "signature"));
    const std::string header = R"({"alg":"ES256","kid":"es)" + std::to_string(i) + "\"}";
    CHECK(Verify(signer.Token(header, GoodClaims().Text()), *set) == "ok");
  }
}

TEST_CASE("EdDSA and RFC 9864's Ed25519 are one algorithm, in the key and in the token") {
  const Signer& ed = Signer::Of(Algorithm::kEdDsa);
  for (const std::string key_alg : {"EdDSA", "Ed25519"}) {
    const auto set = SetOf(ed.Jwk("k", ",\"alg\":\"" + key_alg + "\""));
    for (const std::string alg : {"EdDSA", "Ed25519"}) {
      CAPTURE(key_alg);
      CAPTURE(alg);
      const std::string header = "{\"kid\":\"k\",\"alg\":\"" + alg + "\"}";
      CHECK(Verify(ed.Token(header, GoodClaims().Text()), *set) == "ok");
    }
  }
}

TEST_CASE("each member of the header, good and bad") {
  struct Row {
    std::string_view what;
    std::string header;
    std::string_view verdict;
  };
  const auto with = [](const std::string& name, const std::string& json) {
    return GoodHeader(Algorithm::kHs256).Set(name, json).Text();
  };
  const auto without = [](const std::string& name) {
    return GoodHeader(Algorithm::kHs256).Remove(name).Text();
  };
  const Row rows[] = {
      {"good", kGoodHeader, "ok"},
      {"white space around", "  " + kGoodHeader + "\r\n", "ok"},
      {"typ absent", without("typ"), "ok"},
      {"typ jwt", with("typ", R"("jwt")"), "ok"},
      {"typ Jwt", with("typ", R"("Jwt")"), "ok"},
      {"typ at+jwt", with("typ", R"("at+jwt")"), "header_typ"},
      {"typ dpop+jwt", with("typ", R"("dpop+jwt")"), "header_typ"},
      {"typ application/jwt", with("typ", R"("application/jwt")"), "header_typ"},
      {"typ JWS", with("typ", R"("JWS")"), "header_typ"},
      {"typ empty", with("typ", R"("")"), "header_typ"},
      {"typ null", with("typ", "null"), "header_typ"},
      {"typ an array", with("typ", R"(["JWT"])"), "header_typ"},
      {"typ with a NUL", with("typ", R"("JWT\u0000")"), "header_typ"},
      {"kid absent", without("kid"), "ok"},
      {"kid null", with("kid", "null"), "header_kid"},
      {"kid a number", with("kid", "1"), "header_kid"},
      {"kid an array", with("kid", R"(["kid-HS256"])"), "header_kid"},
      {"kid unknown", with("kid", R"("other")"), "key_unknown"},
      {"kid with a NUL", with("kid", R"("kid-HS256\u0000")"), "key_unknown"},
      {"kid of another case", with("kid", R"("KID-HS256")"), "key_unknown"},
      {"kid a path", with("kid", R"("../../../../dev/null")"), "key_unknown"},
      {"kid a statement", with("kid", R"("x' UNION SELECT 'key' --")"), "key_unknown"},
      {"kid a command", with("kid", R"("key|/usr/bin/id")"), "key_unknown"},
      {"kid an address", with("kid", R"("https://evil.example/key")"), "key_unknown"},
      {"alg absent", without("alg"), "header_alg"},
      {"alg null", with("alg", "null"), "header_alg"},
      {"alg a number", with("alg", "256"), "header_alg"},
      {"alg an array", with("alg", R"(["HS256"])"), "header_alg"},
      {"alg in small letters", with("alg", R"("hs256")"), "header_alg"},
      {"alg with a space", with("alg", R"("HS256 ")"), "header_alg"},
      {"alg with a NUL", with("alg", R"("HS256\u0000")"), "header_alg"},
      {"alg spelled with an escape", with("alg", R"("\u0048S256")"), "ok"},
      {"alg empty", with("alg", R"("")"), "header_alg"},
      {"alg HS384", with("alg", R"("HS384")"), "header_alg"},
      {"alg PS256", with("alg", R"("PS256")"), "header_alg"},
      {"alg of an encrypted token", with("alg", R"("dir")"), "header_alg"},
      {"crit", with("crit", R"(["exp"])"), "header_crit"},
      {"crit empty", with("crit", "[]"), "header_crit"},
      {"crit null", with("crit", "null"), "header_crit"},
      {"crit with b64", with("crit", R"(["b64"])"), "header_crit"},
      {"b64 false", with("b64", "false"), "header_b64"},
      {"b64 true", with("b64", "true"), "header_b64"},
      {"other members", with("cty", R"("x")"), "ok"},
      {"nested members of the same names", with("x", R"({"alg":"none","crit":[],"kid":1})"), "ok"},
      {"alg twice", kGoodHeader.substr(0, kGoodHeader.size() - 1) + R"(,"alg":"HS256"})",
       "header_json"},
      {"alg twice, one spelled with an escape",
       kGoodHeader.substr(0, kGoodHeader.size() - 1) + R"(,"\u0061lg":"none"})", "header_json"},
      {"kid twice", kGoodHeader.substr(0, kGoodHeader.size() - 1) + R"(,"kid":"x"})",
       "header_json"},
      {"an unknown member twice",
       kGoodHeader.substr(0, kGoodHeader.size() - 1) + R"(,"x":1,"x":1})", "header_json"},
      {"empty", "", "header_json"},
      {"an empty object", "{}", "header_alg"},
      {"an array", "[" + kGoodHeader + "]", "header_json"},
      {"a string", R"("HS256")", "header_json"},
      {"null", "null", "header_json"},
      {"two objects", kGoodHeader + kGoodHeader, "header_json"},
      {"cut", kGoodHeader.substr(0, kGoodHeader.size() - 1), "header_json"},
      {"a comma too many", kGoodHeader.substr(0, kGoodHeader.size() - 1) + ",}", "header_json"},
      {"a comment", "/**/" + kGoodHeader, "header_json"},
      {"a byte order mark", "\xef\xbb\xbf" + kGoodHeader, "header_json"},
      {"a NUL behind", kGoodHeader + std::string(1, '\0'), "header_json"},
      {"a NUL and more behind", kGoodHeader + std::string("\0{}", 3), "header_json"},
      {"invalid UTF-8", with("x", "\"\xff\""), "header_json"},
      {"an overlong slash", with("x", "\"\xc0\xaf\""), "header_json"},
      {"a number too big", with("x", "1e400"), "header_json"},
      {"nested 31 deep", with("x", std::string(31, '[') + std::string(31, ']')), "ok"},
      {"nested 32 deep", with("x", std::string(32, '[') + std::string(32, ']')), "header_json"},
      {"nested 2,000 deep", with("x", std::string(2000, '[') + std::string(2000, ']')),
       "header_json"},
      {"opened 3,000 times", std::string(3000, '['), "header_json"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(Verify(WithHeader(row.header)) == row.verdict);
  }
}

TEST_CASE("each claim, good and bad") {
  struct Row {
    std::string_view what;
    std::string claims;
    std::string_view verdict;
  };
  const auto with = [](const std::string& name, const std::string& json) {
    return GoodClaims().Set(name, json).Text();
  };
  const auto without = [](const std::string& name) { return GoodClaims().Remove(name).Text(); };
  const std::string good = GoodClaims().Text();
  const std::string open = good.substr(0, good.size() - 1);
  const Row rows[] = {
      {"good", good, "ok"},
      {"sub absent", without("sub"), "claim_sub"},
      {"sub null", with("sub", "null"), "claim_sub"},
      {"sub a number", with("sub", "1"), "claim_sub"},
      {"sub an array", with("sub", "[" + Quoted(kUser) + "]"), "claim_sub"},
      {"sub empty", with("sub", R"("")"), "claim_sub"},
      {"sub no UUID", with("sub", R"("user")"), "claim_sub"},
      {"sub in capitals", with("sub", R"("00000001-0000-4000-8000-00000000000A")"), "ok"},
      {"sub with a NUL", with("sub", "\"" + std::string(kUser) + R"(\u0000")"), "claim_sub"},
      {"sub with a space", with("sub", "\" " + std::string(kUser) + "\""), "claim_sub"},
      {"aud an array with ours", with("aud", R"(["x","authenticated"])"), "ok"},
      {"aud an array of ours", with("aud", R"(["authenticated"])"), "ok"},
      {"aud absent", without("aud"), "claim_aud"},
      {"aud null", with("aud", "null"), "claim_aud"},
      {"aud empty", with("aud", R"("")"), "claim_aud"},
      {"aud an empty array", with("aud", "[]"), "claim_aud"},
      {"aud an array of an empty text", with("aud", R"([""])"), "claim_aud"},
      {"aud another", with("aud", R"("other")"), "claim_aud"},
      {"aud an array of others", with("aud", R"(["a","b"])"), "claim_aud"},
      {"aud of another case", with("aud", R"("Authenticated")"), "claim_aud"},
      {"aud longer", with("aud", R"("authenticated2")"), "claim_aud"},
      {"aud with a NUL", with("aud", R"("authenticated\u0000")"), "claim_aud"},
      {"aud true", with("aud", "true"), "claim_aud"},
      {"aud a number", with("aud", "1"), "claim_aud"},
      {"aud an object", with("aud", R"({"authenticated":"authenticated"})"), "claim_aud"},
      {"aud an array with null", with("aud", R"(["authenticated",null])"), "claim_aud"},
      {"aud an array in an array", with("aud", R"([["authenticated"]])"), "claim_aud"},
      {"aud ours in another claim", without("aud").replace(1, 0, R"("x":["authenticated"],)"),
       "claim_aud"},
      {"role absent", without("role"), "claim_role"},
      {"role anon", with("role", R"("anon")"), "claim_role"},
      {"role service_role", with("role", R"("service_role")"), "claim_role"},
      {"role null", with("role", "null"), "claim_role"},
      {"role an array", with("role", R"(["authenticated"])"), "claim_role"},
      {"role of another case", with("role", R"("AUTHENTICATED")"), "claim_role"},
      {"client_id", with("client_id", R"("9f1c6f0e-6d8b-4f6e-8f6e-1f2d3c4b5a69")"),
       "claim_client_id"},
      {"client_id empty", with("client_id", R"("")"), "claim_client_id"},
      {"client_id null", with("client_id", "null"), "claim_client_id"},
      {"client_id in another claim", with("x", R"({"client_id":"y"})"), "ok"},
      {"session_id absent", without("session_id"), "claim_session_id"},
      {"session_id null", with("session_id", "null"), "claim_session_id"},
      {"session_id empty", with("session_id", R"("")"), "claim_session_id"},
      {"session_id no UUID", with("session_id", R"("1")"), "claim_session_id"},
      {"exp absent", without("exp"), "claim_exp"},
      {"exp null", with("exp", "null"), "claim_exp"},
      {"exp a text", with("exp", R"("1900000000")"), "claim_exp"},
      {"exp true", with("exp", "true"), "claim_exp"},
      {"exp an array", with("exp", "[1900000000]"), "claim_exp"},
      {"exp an object", with("exp", "{}"), "claim_exp"},
      {"exp with a fraction", with("exp", "1900000000.5"), "ok"},
      {"exp with an exponent", with("exp", "1.9e9"), "ok"},
      {"exp with a capital exponent", with("exp", "19E+8"), "ok"},
      {"exp zero", with("exp", "0"), "expired"},
      {"exp negative", with("exp", "-1"), "expired"},
      {"exp at the bound", with("exp", "9007199254740991"), "ok"},
      {"exp over the bound", with("exp", "9007199254740992"), "claim_exp"},
      {"exp over int64", with("exp", "9223372036854775808"), "claim_exp"},
      {"exp over uint64", with("exp", "18446744073709551616"), "claim_exp"},
      {"exp 1e308", with("exp", "1e308"), "claim_exp"},
      {"exp 1e309", with("exp", "1e309"), "claims_json"},
      {"exp 1e400", with("exp", "1e400"), "claims_json"},
      {"exp 1e99999999999", with("exp", "1e99999999999"), "claims_json"},
      {"exp of 400 digits", with("exp", std::string(400, '9')), "claims_json"},
      {"exp of 300 digits", with("exp", std::string(300, '9')), "claim_exp"},
      {"exp of a long fraction", with("exp", "1900000000." + std::string(100, '0')), "claim_exp"},
      {"exp next to nothing", with("exp", "1e-400"), "claim_exp"},
      {"exp NaN", with("exp", "NaN"), "claims_json"},
      {"exp Infinity", with("exp", "Infinity"), "claims_json"},
      {"exp in hexadecimal", with("exp", "0x70000000"), "claims_json"},
      {"exp with a plus", with("exp", "+1900000000"), "claims_json"},
      {"exp with a leading zero", with("exp", "01900000000"), "claims_json"},
      {"nbf in the past", with("nbf", "1700000000"), "ok"},
      {"nbf in the future", with("nbf", "1900000000"), "not_yet_valid"},
      {"nbf null", with("nbf", "null"), "claim_nbf"},
      {"nbf a text", with("nbf", R"("1700000000")"), "claim_nbf"},
      {"nbf over the bound", with("nbf", "-1e300"), "claim_nbf"},
      {"iat absent", without("iat"), "ok"},
      {"iat in the future", with("iat", "1900000000"), "ok"},
      {"iat a text", with("iat", R"("1700000000")"), "claim_iat"},
      {"iat null", with("iat", "null"), "claim_iat"},
      {"iss absent", without("iss"), "ok"},
      {"jwt in jwt", with("x", Quoted(WithClaims(good))), "ok"},
      {"exp twice", open + R"(,"exp":1900000000})", "claims_json"},
      {"sub twice", open + ",\"sub\":" + Quoted(kUser) + "}", "claims_json"},
      {"role twice, one spelled with an escape", open + R"(,"r\u006fle":"x"})", "claims_json"},
      {"an unknown claim twice", open + R"(,"x":1,"x":1})", "claims_json"},
      {"one name twice further down", with("x", R"({"a":1,"a":2})"), "ok"},
      {"empty", "", "claims_json"},
      {"an empty object", "{}", "claim_exp"},
      {"an array", "[" + good + "]", "claims_json"},
      {"a text", R"("claims")", "claims_json"},
      {"not JSON", "sub=user", "claims_json"},
      {"cut", open, "claims_json"},
      {"more behind", good + "{}", "claims_json"},
      {"a NUL behind", good + std::string(1, '\0'), "claims_json"},
      {"a NUL within", with("x", std::string("\"\0\"", 3)), "claims_json"},
      {"an escaped NUL elsewhere", with("x", R"("\u0000")"), "ok"},
      {"invalid UTF-8", with("x", "\"\xff\xfe\""), "claims_json"},
      {"a surrogate in UTF-8", with("x", "\"\xed\xa0\x80\""), "claims_json"},
      {"a lone escaped surrogate", with("x", R"("\ud800")"), "claims_json"},
      {"a number elsewhere too big", with("x", "1e999"), "claims_json"},
      {"nested 31 deep", with("x", std::string(31, '[') + std::string(31, ']')), "ok"},
      {"nested 32 deep", with("x", std::string(32, '[') + std::string(32, ']')), "claims_json"},
      {"nested 2,000 deep", with("x", std::string(2000, '[') + std::string(2000, ']')),
       "claims_json"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(Verify(WithClaims(row.claims)) == row.verdict);
  }
}

TEST_CASE("issuer, audience and session are what the policy says") {
  TokenPolicy policy;
  policy.issuers = {"https://auth.example/auth/v1", "https://ref.supabase.co/auth/v1"};
  const auto verify = [&](JsonObject claims) {
    return Verify(WithClaims(claims.Text()), Keys(), policy);
  };
  CHECK(verify(GoodClaims()) == "ok");
  CHECK(verify(GoodClaims().Set("iss", R"("https://auth.example/auth/v1")")) == "ok");
  CHECK(verify(GoodClaims().Remove("iss")) == "claim_iss");
  CHECK(verify(GoodClaims().Set("iss", R"("https://other.supabase.co/auth/v1")")) == "claim_iss");
  CHECK(verify(GoodClaims().Set("iss", R"("https://ref.supabase.co/auth/v1/")")) == "claim_iss");
  CHECK(verify(GoodClaims().Set("iss", R"("")")) == "claim_iss");
  CHECK(verify(GoodClaims().Set("iss", "null")) == "claim_iss");
  CHECK(verify(GoodClaims().Set("iss", R"(["https://ref.supabase.co/auth/v1"])")) == "claim_iss");

  policy.audience = "other";
  CHECK(verify(GoodClaims()) == "claim_aud");
  CHECK(verify(GoodClaims().Set("aud", R"(["authenticated","other"])")) == "ok");

  policy.require_session = false;
  for (const std::string session : {"null", R"("")", R"("not a UUID")", "5"}) {
    CAPTURE(session);
    const std::string token =
        WithClaims(GoodClaims().Set("aud", R"("other")").Set("session_id", session).Text());
    const Verdict verdict = VerifyToken(token, Keys(), policy, At(kNow));
    REQUIRE(Describe(verdict) == "ok");
    CHECK_FALSE(std::get<Claims>(verdict).has_session);
  }
}

TEST_CASE("time is exact at its edges, the leeway included") {
  struct Row {
    std::string exp;
    std::string nbf;
    int leeway;
    double now;
    std::string_view verdict;
  };
  const Row rows[] = {
      {"1000", "0", 0, 999, "ok"},
      {"1000", "0", 0, 999.999, "ok"},
      {"1000", "0", 0, 1000, "expired"},
      {"1000", "0", 0, 1e9, "expired"},
      {"1000.5", "0", 0, 1000.25, "ok"},
      {"1000.5", "0", 0, 1000.5, "expired"},
      {"1000", "0", 60, 1059.5, "ok"},
      {"1000", "0", 60, 1060, "expired"},
      {"2000", "1000", 0, 999.5, "not_yet_valid"},
      {"2000", "1000", 0, 1000, "ok"},
      {"2000", "1000.5", 0, 1000, "not_yet_valid"},
      {"2000", "1000.5", 0, 1000.5, "ok"},
      {"2000", "1000", 60, 939.5, "not_yet_valid"},
      {"2000", "1000", 60, 940, "ok"},
      {"1000", "2000", 0, 1500, "not_yet_valid"},
      {"1000", "2000", 0, 3000, "expired"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.exp);
    CAPTURE(row.nbf);
    CAPTURE(row.leeway);
    CAPTURE(row.now);
    TokenPolicy policy;
    policy.leeway = std::chrono::seconds(row.leeway);
    const std::string token =
        WithClaims(GoodClaims().Set("exp", row.exp).Set("nbf", row.nbf).Text());
    CHECK(Describe(VerifyToken(token, Keys(), policy, At(row.now))) == row.verdict);
  }
}

TEST_CASE("only a genuine token of ours can be expired") {
  const std::string expired = GoodClaims().Set("exp", "1000").Text();
  CHECK(Verify(WithClaims(expired)) == "expired");
  CHECK(KindOf(TokenRefusal::kExpired) == RefusalKind::kExpired);
  CHECK(Verify(Signer::Of(Algorithm::kHs256, 1).Token(kGoodHeader, expired)) == "signature");
  CHECK(Verify(WithClaims(GoodClaims().Set("exp", "1000").Set("aud", R"("x")").Text())) ==
        "claim_aud");
  CHECK(Verify(WithClaims(GoodClaims().Set("exp", "1000").Remove("sub").Text())) == "claim_sub");
}

TEST_CASE("the project's anon and service_role keys and an id_token are no sessions") {
  for (const std::string role : {"anon", "service_role"}) {
    const std::string key = R"({"iss":"supabase","ref":"abcdefghijklmnopqrst","role":")" + role +
                            R"(","iat":1700000000,"exp":2015000000})";
    CHECK(Verify(WithClaims(key)) == "claim_sub");
  }
  CHECK(Verify(WithClaims(
            R"({"iss":"https://accounts.example","azp":"client","aud":"client","sub":")" +
            std::string(kUser) +
            R"(","at_hash":"x","nonce":"n","iat":1800000000,"exp":1800003600})")) == "claim_aud");
}

TEST_CASE("alg none is nothing, in any spelling, signed or not") {
  for (const std::string none :
       {"none", "None", "NONE", "nOnE", "none ", "", "null", "\\u006eone"}) {
    CAPTURE(none);
    for (const bool with_kid : {true, false}) {
      JsonObject header = GoodHeader(Algorithm::kHs256).Set("alg", Quoted(none));
      if (!with_kid) header.Remove("kid");
      const std::string input = test::SigningInput(header.Text(), GoodClaims().Text());
      CHECK(Verify(input + ".") == "header_alg");
      CHECK(Verify(input) == "token_parts");
      CHECK(Verify(test::Assemble(input, Signer::Of(Algorithm::kHs256).Sign(input))) ==
            "header_alg");
    }
  }
  CHECK(Verify(test::SigningInput(kGoodHeader, GoodClaims().Text()) + ".") == "signature");
}

TEST_CASE("a public key is no HMAC secret: not as PEM, DER or JWK") {
  for (const Algorithm algorithm : {Algorithm::kRs256, Algorithm::kEs256, Algorithm::kEdDsa}) {
    CAPTURE(NameOf(algorithm));
    const Signer& victim = Signer::Of(algorithm);
    const std::string jwk = victim.Jwk(Kid(algorithm));
    const auto alone = SetOf(jwk);
    const auto with_secret =
        JwkSet::Load("{\"keys\":[" + jwk + "]}", Signer::Of(Algorithm::kHs256).secret()).set;
    const std::string pem = victim.PublicPem();
    for (const std::string& secret : {pem, pem.substr(0, pem.size() - 1), victim.PublicDer(), jwk,
                                      "{\"keys\":[" + jwk + "]}", std::string()}) {
      for (const bool with_kid : {true, false}) {
        JsonObject header = GoodHeader(algorithm).Set("alg", R"("HS256")");
        if (!with_kid) header.Remove("kid");
        const std::string input = test::SigningInput(header.Text(), GoodClaims().Text());
        const std::string token = test::Assemble(input, test::HmacSha256(secret, input));
        CHECK(Verify(token, *alone) == (with_kid ? "key_algorithm" : "key_unknown"));
        CHECK(Verify(token, *with_secret) == (with_kid ? "key_algorithm" : "signature"));
        CHECK(Verify(token) == (with_kid ? "key_algorithm" : "signature"));
      }
    }
    CHECK(Verify(victim.Token(GoodHeader(algorithm).Text(), GoodClaims().Text()), *alone) == "ok");
  }
}

TEST_CASE("keys that a token brings along are never looked at") {
  const Signer& attacker = Signer::Of(Algorithm::kRs256, 1);
  struct Row {
    std::string name, json;
  };
  const Row rows[] = {
      {"jwk", attacker.Jwk("kid-RS256")},
      {"jku", R"("https://evil.example/jwks.json")"},
      {"x5u", R"("https://evil.example/cert.pem")"},
      {"x5c", R"(["MIIB"])"},
      {"x5t#S256", R"("AAAA")"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const std::string header = GoodHeader(Algorithm::kRs256).Set(row.name, row.json).Text();
    const std::string claims = GoodClaims().Text();
    CHECK(Verify(attacker.Token(header, claims)) == "signature");
    CHECK(Verify(Signer::Of(Algorithm::kRs256).Token(header, claims)) == "ok");
  }
}

TEST_CASE("a kid that names no key never finds an empty or a guessed one") {
  for (const std::string kid :
       {"../../../../dev/null", "' OR '1'='1", "", "0", "\\u0000", "null"}) {
    CAPTURE(kid);
    const std::string header = GoodHeader(Algorithm::kHs256).Set("kid", Quoted(kid)).Text();
    const std::string input = test::SigningInput(header, GoodClaims().Text());
    for (const std::string& secret : {std::string(), std::string(1, '\0'), kid}) {
      const std::string token = test::Assemble(input, test::HmacSha256(secret, input));
      CHECK(Verify(token) == "key_unknown");
      const auto legacy = JwkSet::Load(std::nullopt, Signer::Of(Algorithm::kHs256).secret()).set;
      CHECK(Verify(token, *legacy) == "signature");
    }
  }
}

TEST_CASE("a token has three parts, each strict base64url, in one spelling only") {
  const std::string token = WithClaims(GoodClaims().Text());
  const size_t first = token.find('.'), second = token.rfind('.');
  const std::string header = token.substr(0, first);
  const std::string claims = token.substr(first + 1, second - first - 1);
  const std::string signature = token.substr(second + 1);
  struct Row {
    std::string_view flaw;
    std::string token;
    std::string_view verdict;
  };
  std::string spare_bits = token;
  spare_bits.back() = static_cast<char>(spare_bits.back() + 1);  // 32 bytes leave two spare bits
  const Row rows[] = {
      {"none", token, "ok"},
      {"empty", "", "token_parts"},
      {"one part", header, "token_parts"},
      {"two parts", header + "." + claims, "token_parts"},
      {"four parts", token + ".", "token_parts"},
      {"five parts, encrypted", "a.b.c.d.e", "token_parts"},
      {"dots alone", "..", "header_json"},
      {"no header", "." + claims + "." + signature, "header_json"},
      {"no claims", header + ".." + signature, "signature"},
      {"no signature", header + "." + claims + ".", "signature"},
      {"padded signature", token + "=", "signature_encoding"},
      {"spare bits in the signature", spare_bits, "signature_encoding"},
      {"a newline behind", token + "\n", "signature_encoding"},
      {"a space before", " " + token, "header_encoding"},
      {"quoted", "\"" + token + "\"", "header_encoding"},
      {"Bearer", "Bearer " + token, "header_encoding"},
      {"percent-encoded", header + "%2E" + claims + "." + signature, "token_parts"},
      {"a long signature", header + "." + claims + "." + std::string(1400, 'A'),
       "signature_encoding"},
      {"a NUL behind", token + std::string(1, '\0'), "signature_encoding"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.flaw);
    CHECK(Verify(row.token) == row.verdict);
  }
  // Signed by the issuer himself, yet spelled otherwise.
  const Signer& signer = Signer::Of(Algorithm::kHs256);
  const auto sign = [&](const std::string& input) {
    return test::Assemble(input, signer.Sign(input));
  };
  CHECK(Verify(sign(header + "." + claims)) == "ok");
  CHECK(Verify(sign(header + "." + claims + "=")) == "claims_encoding");
  CHECK(Verify(sign(header + "=." + claims)) == "header_encoding");
  CHECK(Verify(sign(header + "." + claims + "\n")) == "claims_encoding");
  // RFC 7797: the claims not encoded at all.
  CHECK(Verify(sign(test::EncodeBase64url(R"({"alg":"HS256","kid":"kid-HS256","b64":false})") +
                    "." + R"({"exp":1900000000})")) == "header_b64");
}

TEST_CASE("a token of 16 KB is read, a longer one is not") {
  const auto of_length = [](size_t length) {
    const std::string empty = WithClaims(GoodClaims().Set("x", R"("")").Text());
    size_t pad = (length - empty.size()) * 3 / 4;
    std::string token;
    while (token.size() < length) {
      token = WithClaims(GoodClaims().Set("x", Quoted(std::string(pad++, 'p'))).Text());
    }
    return token;
  };
  const std::string longest = of_length(kMaxTokenLength - 1);
  REQUIRE(longest.size() <= kMaxTokenLength);
  CHECK(Verify(longest) == "ok");
  CHECK(Verify(of_length(kMaxTokenLength + 1)) == "token_too_long");
  CHECK(Verify(std::string(kMaxTokenLength, '.')) == "token_parts");
  CHECK(Verify(std::string(kMaxTokenLength, 'A')) == "token_parts");
  CHECK(Verify(std::string(kMaxTokenLength - 2, 'A') + "..") == "header_json");
  CHECK(Verify(std::string(100000, 'A')) == "token_too_long");
}

TEST_CASE("a NumericDate is a number within 2^53 seconds of the epoch") {
  struct Row {
    std::string_view text;
    std::optional<double> seconds;
  };
  const Row rows[] = {
      {"0", 0},
      {"-0", 0},
      {"1", 1},
      {"1.5", 1.5},
      {"15e-1", 1.5},
      {"1.8e9", 1.8e9},
      {"-1", -1},
      {"9007199254740991", 9007199254740991.0},
      {"-9007199254740991", -9007199254740991.0},
      {"9007199254740992", std::nullopt},
      {"-9007199254740992", std::nullopt},
      {"1e16", std::nullopt},
      {"1e400", std::nullopt},
      {"-1e400", std::nullopt},
      {"", std::nullopt},
      {" 1", std::nullopt},
      {"1 ", std::nullopt},
      {"1x", std::nullopt},
      {"inf", std::nullopt},
      {"nan", std::nullopt},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    const auto date = ParseNumericDate(row.text);
    REQUIRE(date.has_value() == row.seconds.has_value());
    if (date) CHECK(date->time_since_epoch().count() == *row.seconds);
  }
}

TEST_CASE("each refusal has a name of its own, and only three are not simply invalid") {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kTokenRefusals; ++i) {
    const auto refusal = static_cast<TokenRefusal>(i);
    CAPTURE(Describe(refusal));
    CHECK(names.insert(Describe(refusal)).second);
    CHECK_FALSE(Describe(refusal).empty());
    CHECK(KindOf(refusal) == (refusal == TokenRefusal::kNoCookie  ? RefusalKind::kMissing
                              : refusal == TokenRefusal::kExpired ? RefusalKind::kExpired
                              : refusal == TokenRefusal::kTooLong ? RefusalKind::kTooLarge
                                                                  : RefusalKind::kInvalid));
  }
}

}  // namespace
}  // namespace keys
