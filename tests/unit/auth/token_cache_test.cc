#include "handler/auth/token_cache.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/auth/session_claims.h"
#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

using test::At;
using test::Describe;
using test::GoodClaims;
using test::kNow;
using test::Signer;

const Signer& Issuer() {
  return Signer::Of(Algorithm::kHs256);
}

std::unique_ptr<const JwkSet> Keys() {
  return JwkSet::Load(std::nullopt, Issuer().secret()).set;
}

std::string Token(const std::string& claims, const Signer& signer = Issuer()) {
  return signer.Token(R"({"alg":"HS256","typ":"JWT"})", claims);
}

// The nth of many genuine tokens.
std::string Numbered(int number) {
  return Token(GoodClaims().Set("x", std::to_string(number)).Text());
}

// The verdict, and whether the token was remembered: "ok", "ok, remembered".
std::string Ask(TokenCache& cache, const std::string& token, const JwkSet& keys,
                double now = kNow) {
  bool hit = true;
  const Verdict verdict = cache.Verify(token, keys, At(now), &hit);
  return Describe(verdict) + (hit ? ", remembered" : "");
}

TEST_CASE("a verified token is remembered with its claims") {
  TokenCache cache{{}};
  const auto keys = Keys();
  const std::string token = Token(GoodClaims().Text());
  CHECK(Ask(cache, token, *keys) == "ok");
  CHECK(Ask(cache, token, *keys) == "ok, remembered");
  const Verdict verdict = cache.Verify(token, *keys, At(kNow));
  const Claims& claims = std::get<Claims>(verdict);
  CHECK(ToString(claims.user) == test::kUser);
  CHECK(ToString(claims.session) == test::kSession);
  CHECK(claims.has_session);
  CHECK(claims.expires_at == At(kNow + 3600));
}

TEST_CASE("time is checked again at every call") {
  TokenPolicy policy;
  policy.leeway = std::chrono::seconds(5);
  TokenCache cache(policy);
  const auto keys = Keys();
  const std::string token = Token(
      GoodClaims().Set("nbf", std::to_string(kNow)).Set("exp", std::to_string(kNow + 10)).Text());
  CHECK(Ask(cache, token, *keys, kNow + 1) == "ok");
  CHECK(Ask(cache, token, *keys, kNow + 14.5) == "ok, remembered");
  CHECK(Ask(cache, token, *keys, kNow + 15) == "expired, remembered");
  CHECK(Ask(cache, token, *keys, kNow + 1e6) == "expired, remembered");
  // A clock that is set back.
  CHECK(Ask(cache, token, *keys, kNow - 5) == "ok, remembered");
  CHECK(Ask(cache, token, *keys, kNow - 6) == "not_yet_valid, remembered");
}

TEST_CASE("only what passed everything enters") {
  TokenCache cache{{}};
  const auto keys = Keys();
  const std::string good = Token(GoodClaims().Text());
  const std::string rows[] = {
      "",
      "no token",
      std::string(9000, 'A'),
      good + "x",
      Token(GoodClaims().Text(), Signer::Of(Algorithm::kHs256, 1)),
      Token(GoodClaims().Set("exp", "1000").Text()),
      Token(GoodClaims().Set("nbf", "1900000000").Text()),
      Token(GoodClaims().Set("aud", R"("other")").Text()),
      Token(GoodClaims().Remove("session_id").Text()),
  };
  for (const std::string& token : rows) {
    CAPTURE(token);
    const std::string first = Ask(cache, token, *keys);
    CHECK(first != "ok");
    CHECK(first.find("remembered") == std::string::npos);
    CHECK(Ask(cache, token, *keys) == first);
  }
  CHECK(Ask(cache, good, *keys) == "ok");
}

TEST_CASE("one changed byte is another token") {
  TokenCache cache{{}};
  const auto keys = Keys();
  const std::string good = Token(GoodClaims().Text());
  REQUIRE(Ask(cache, good, *keys) == "ok");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const std::string verdict = Ask(cache, changed, *keys);
    CAPTURE(i);
    CHECK(verdict != "ok");
    CHECK(verdict.find("remembered") == std::string::npos);
  }
  CHECK(Ask(cache, good, *keys) == "ok, remembered");
}

TEST_CASE("a removed key stops verifying at once, remembered signatures included") {
  TokenCache cache{{}};
  const auto before = Keys();
  const std::string token = Token(GoodClaims().Text());
  CHECK(Ask(cache, token, *before) == "ok");
  CHECK(Ask(cache, token, *before) == "ok, remembered");
  const auto without =
      JwkSet::Load("{\"keys\":[" + Signer::Of(Algorithm::kEs256).Jwk("") + "]}", std::nullopt).set;
  CHECK(Ask(cache, token, *without) == "key_unknown");
  const auto other = JwkSet::Load(std::nullopt, Signer::Of(Algorithm::kHs256, 1).secret()).set;
  CHECK(Ask(cache, token, *other) == "signature");
  // The key comes back: verified anew.
  const auto again = Keys();
  CHECK(Ask(cache, token, *again) == "ok");
  CHECK(Ask(cache, token, *again) == "ok, remembered");
}

TEST_CASE("a cache knows one policy") {
  TokenPolicy other;
  other.audience = "other";
  TokenCache ours{{}}, theirs(other);
  const auto keys = Keys();
  const std::string token = Token(GoodClaims().Text());
  CHECK(Ask(ours, token, *keys) == "ok");
  CHECK(Ask(theirs, token, *keys) == "claim_aud");
  CHECK(Ask(theirs, token, *keys) == "claim_aud");
}

TEST_CASE("a flood of forged tokens pushes nobody out") {
  TokenCache cache({}, 8);
  const auto keys = Keys();
  const std::string good = Token(GoodClaims().Text());
  REQUIRE(Ask(cache, good, *keys) == "ok");
  const std::string input = good.substr(0, good.rfind('.'));
  for (int i = 0; i < 5000; ++i) {
    Ask(cache, test::Assemble(input, test::Sha256(std::to_string(i))), *keys);
  }
  CHECK(Ask(cache, good, *keys) == "ok, remembered");
}

TEST_CASE("a flood of genuine tokens stays within the bound and spares what is in use") {
  TokenCache cache({}, 8);  // one set
  const auto keys = Keys();
  const std::string good = Token(GoodClaims().Text());
  REQUIRE(Ask(cache, good, *keys) == "ok");
  for (int i = 0; i < 200; ++i) {
    CHECK(Ask(cache, Numbered(i), *keys) == "ok");
    CHECK(Ask(cache, good, *keys) == "ok, remembered");
  }
  int remembered = 0;
  for (int i = 199; i >= 0; --i) {
    bool hit = false;
    cache.Verify(Numbered(i), *keys, At(kNow), &hit);
    remembered += hit ? 1 : 0;
  }
  CHECK(remembered <= 8);
}

}  // namespace
}  // namespace keys
