// A token: its bytes as they come, and its header and claims under a signature that is right, so
// that the fuzzer gets past it. The first byte chooses. Nobody knows the keys, so no token that is
// not signed here may ever be a session.
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "handler/auth/jwk_set.h"
#include "handler/auth/jwt.h"
#include "handler/auth/token_cache.h"

namespace {

constexpr std::string_view kSecret = "a secret that only this fuzz target knows";

// RFC 7515 A.3 and A.2, RFC 8037 A.2: nobody signs with these here.
constexpr std::string_view kSet =
    R"({"keys":[{"kid":"es","kty":"EC","crv":"P-256",)"
    R"("x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",)"
    R"("y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},)"
    R"({"kid":"rs","kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26)"
    R"(mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZ)"
    R"(o9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZ)"
    R"(lxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FR)"
    R"(WyuXpoQ"},{"kid":"ed","kty":"OKP","crv":"Ed25519",)"
    R"("x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";

std::string Encode(std::string_view bytes) {
  std::string text(bytes.size() / 3 * 4 + 5, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

std::string Sign(std::string_view input) {
  unsigned char mac[32];
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(input.data()), input.size(), mac, nullptr);
  return std::string(input) + "." + Encode({reinterpret_cast<const char*>(mac), sizeof mac});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto keys = keys::JwkSet::Load(kSet, kSecret).set;
  static const keys::TokenPolicy policy;
  static keys::TokenCache cache(policy, 64);
  const keys::UnixTime now{std::chrono::seconds(1'800'000'000)};
  if (size == 0) return 0;

  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string token;
  const bool genuine = data[0] % 3 != 0;
  if (data[0] % 3 == 0) {
    token = text;
  } else if (data[0] % 3 == 1) {
    token = Sign(Encode(R"({"alg":"HS256","typ":"JWT"})") + "." + Encode(text));
  } else {
    token = Sign(Encode(text) + "." + Encode("{}"));
  }

  const keys::Verdict verdict = keys::VerifyToken(token, *keys, policy, now);
  bool hit = false;
  const keys::Verdict remembered = cache.Verify(token, *keys, now, &hit);
  if (verdict.index() != remembered.index()) std::abort();
  if (const auto* const claims = std::get_if<keys::Claims>(&verdict)) {
    if (!genuine && token.find(Sign(token.substr(0, token.rfind('.')))) != 0) std::abort();
    if (claims->expires_at <= now || claims->not_before > now || !claims->has_session) std::abort();
  } else {
    const auto refusal = std::get<keys::TokenRefusal>(verdict);
    if (refusal != std::get<keys::TokenRefusal>(remembered)) std::abort();
    if (keys::KindOf(refusal) == keys::RefusalKind::kMissing) std::abort();
  }
  return 0;
}
