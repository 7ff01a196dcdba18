#include "handler/auth/verification_key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include <array>
#include <optional>
#include <utility>

#include "handler/base/openssl.h"

namespace keys {
namespace {

constexpr std::string_view kEd25519 = "Ed25519";
constexpr size_t kHmacSize = 32;
constexpr size_t kCoordinateSize = 32;
constexpr size_t kEd25519Size = 32;
constexpr size_t kMinSecret = 32;
constexpr size_t kMaxSecret = 4096;
constexpr int kMinRsaBits = 2048;
constexpr int kMaxRsaBits = 8192;
constexpr int kMaxRsaExponentBits = 64;

// A public key of `type` with these parameters; null when OpenSSL finds them no key.
Owned<EVP_PKEY> MakePublicKey(const char* type, OSSL_PARAM_BLD* builder) {
  const auto parameters = Need(OSSL_PARAM_BLD_to_param(builder), "parameters");
  const auto context = Need(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr), type);
  Need(EVP_PKEY_fromdata_init(context.get()), type);
  EVP_PKEY* made = nullptr;
  const bool good =
      EVP_PKEY_fromdata(context.get(), &made, EVP_PKEY_PUBLIC_KEY, parameters.get()) == 1;
  Owned<EVP_PKEY> key(made);
  if (good) {
    const auto check = Need(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr), type);
    if (EVP_PKEY_public_check(check.get()) == 1) return key;
  }
  ERR_clear_error();
  return nullptr;
}

// A context in which EVP_PKEY_verify may be called again and again.
Owned<EVP_PKEY_CTX> MakeVerifier(EVP_PKEY* key) {
  auto context = Need(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr), "verifier");
  Need(EVP_PKEY_verify_init(context.get()), "verifier");
  return context;
}

}  // namespace

// What the algorithm at hand needs; the rest is empty.
struct VerificationKey::State {
  Owned<EVP_PKEY> public_key;    // ES256, RS256, EdDSA
  Owned<EVP_PKEY_CTX> verify;    // ES256, RS256
  Owned<EVP_MD_CTX> digest;      // EdDSA
  Owned<EVP_MAC_CTX> hmac;       // HS256
  std::optional<Sha256> sha256;  // ES256, RS256

  bool VerifyHash(std::string_view input, const unsigned char* signature, size_t size) const {
    const Sha256::Digest hash = sha256->Hash(input);
    return EVP_PKEY_verify(verify.get(), signature, size, hash.data(), hash.size()) == 1;
  }

  bool VerifyHs256(std::string_view input, std::string_view signature) const {
    std::array<unsigned char, kHmacSize> mac;
    size_t size = 0;
    // Without a key, init starts over with the one that the context has.
    return signature.size() == mac.size() && EVP_MAC_init(hmac.get(), nullptr, 0, nullptr) == 1 &&
           EVP_MAC_update(hmac.get(), Bytes(input), input.size()) == 1 &&
           EVP_MAC_final(hmac.get(), mac.data(), &size, mac.size()) == 1 && size == mac.size() &&
           CRYPTO_memcmp(mac.data(), signature.data(), mac.size()) == 0;
  }

  // JWS writes r||s (RFC 7518 section 3.4), OpenSSL reads DER.
  bool VerifyEs256(std::string_view input, std::string_view signature) const {
    if (signature.size() != 2 * kCoordinateSize) return false;
    const auto number = [&](size_t at) {
      return Need(BN_bin2bn(Bytes(signature) + at, kCoordinateSize, nullptr), "BN");
    };
    auto r = number(0), s = number(kCoordinateSize);
    const auto pair = Need(ECDSA_SIG_new(), "ECDSA_SIG");
    Need(ECDSA_SIG_set0(pair.get(), r.get(), s.get()), "ECDSA_SIG");
    r.release(), s.release();  // the pair's now
    std::array<unsigned char, 2 + 2 * (2 + 1 + kCoordinateSize)> der;
    unsigned char* end = der.data();
    const int size = i2d_ECDSA_SIG(pair.get(), &end);
    return size > 0 && VerifyHash(input, der.data(), static_cast<size_t>(size));
  }

  bool VerifyRs256(std::string_view input, std::string_view signature) const {
    return signature.size() == static_cast<size_t>(EVP_PKEY_get_size(public_key.get())) &&
           VerifyHash(input, Bytes(signature), signature.size());
  }

  bool VerifyEdDsa(std::string_view input, std::string_view signature) const {
    return EVP_DigestVerifyInit(digest.get(), nullptr, nullptr, nullptr, public_key.get()) == 1 &&
           EVP_DigestVerify(digest.get(), Bytes(signature), signature.size(), Bytes(input),
                            input.size()) == 1;
  }
};

std::string_view NameOf(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kHs256:
      return "HS256";
    case Algorithm::kEs256:
      return "ES256";
    case Algorithm::kRs256:
      return "RS256";
    case Algorithm::kEdDsa:
      return "EdDSA";
  }
  return "none";
}

std::optional<Algorithm> ParseAlgorithm(std::string_view name) {
  if (name == kEd25519) return Algorithm::kEdDsa;
  for (const Algorithm algorithm :
       {Algorithm::kHs256, Algorithm::kEs256, Algorithm::kRs256, Algorithm::kEdDsa}) {
    if (NameOf(algorithm) == name) return algorithm;
  }
  return std::nullopt;
}

VerificationKey::VerificationKey(Algorithm algorithm, std::unique_ptr<State> state)
    : algorithm_(algorithm), state_(std::move(state)) {}
VerificationKey::VerificationKey(VerificationKey&&) noexcept = default;
VerificationKey& VerificationKey::operator=(VerificationKey&&) noexcept = default;
VerificationKey::~VerificationKey() = default;

VerificationKey::Made VerificationKey::Hs256(std::string_view secret) {
  if (secret.size() < kMinSecret || secret.size() > kMaxSecret) {
    return "the secret has " + std::to_string(secret.size()) + " bytes, not 32 to 4096";
  }
  const auto hmac = Need(EVP_MAC_fetch(nullptr, "HMAC", nullptr), "HMAC");
  auto state = std::make_unique<State>();
  state->hmac = Need(EVP_MAC_CTX_new(hmac.get()), "HMAC");
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  Need(EVP_MAC_init(state->hmac.get(), Bytes(secret), secret.size(), parameters), "HMAC");
  return VerificationKey(Algorithm::kHs256, std::move(state));
}

VerificationKey::Made VerificationKey::Es256(std::string_view x, std::string_view y) {
  if (x.size() != kCoordinateSize || y.size() != kCoordinateSize) {
    return "x and y are not 32 bytes each";
  }
  std::string point = "\x04";  // uncompressed (SEC 1 section 2.3.3)
  point += x;
  point += y;
  const auto builder = Need(OSSL_PARAM_BLD_new(), "parameters");
  Need(OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0),
       "parameters");
  Need(OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                        point.size()),
       "parameters");
  auto state = std::make_unique<State>();
  state->public_key = MakePublicKey("EC", builder.get());
  if (!state->public_key) return "the point is not on P-256";
  state->verify = MakeVerifier(state->public_key.get());
  state->sha256.emplace();
  return VerificationKey(Algorithm::kEs256, std::move(state));
}

VerificationKey::Made VerificationKey::Rs256(std::string_view modulus, std::string_view exponent) {
  if (modulus.size() > kMaxRsaBits / 8 + 1 || exponent.size() > kMaxRsaBits / 8 + 1) {
    return "the RSA modulus or exponent is over 8192 bits";
  }
  const auto n = Need(BN_bin2bn(Bytes(modulus), static_cast<int>(modulus.size()), nullptr), "BN");
  const auto e = Need(BN_bin2bn(Bytes(exponent), static_cast<int>(exponent.size()), nullptr), "BN");
  const int bits = BN_num_bits(n.get());
  if (bits < kMinRsaBits || bits > kMaxRsaBits) {
    return "the RSA modulus has " + std::to_string(bits) + " bits, not 2048 to 8192";
  }
  if (!BN_is_odd(e.get()) || BN_is_one(e.get()) || BN_num_bits(e.get()) > kMaxRsaExponentBits) {
    return "the RSA exponent is even, under 3 or over 64 bits";
  }
  const auto builder = Need(OSSL_PARAM_BLD_new(), "parameters");
  Need(OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()), "parameters");
  Need(OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()), "parameters");
  auto state = std::make_unique<State>();
  state->public_key = MakePublicKey("RSA", builder.get());
  if (!state->public_key) return "the RSA modulus is even, a prime, or has a small factor";
  state->verify = MakeVerifier(state->public_key.get());
  Need(EVP_PKEY_CTX_set_rsa_padding(state->verify.get(), RSA_PKCS1_PADDING), "RSA padding");
  state->sha256.emplace();
  Need(EVP_PKEY_CTX_set_signature_md(state->verify.get(), Sha256::Algorithm()), "RSA digest");
  return VerificationKey(Algorithm::kRs256, std::move(state));
}

VerificationKey::Made VerificationKey::EdDsa(std::string_view x) {
  if (x.size() != kEd25519Size) return "x is not 32 bytes";
  auto state = std::make_unique<State>();
  state->public_key = Need(
      EVP_PKEY_new_raw_public_key_ex(nullptr, "ED25519", nullptr, Bytes(x), x.size()), "ED25519");
  state->digest = Need(EVP_MD_CTX_new(), "digest");
  return VerificationKey(Algorithm::kEdDsa, std::move(state));
}

bool VerificationKey::Verify(std::string_view input, std::string_view signature) const {
  const auto verified = [&] {
    switch (algorithm_) {
      case Algorithm::kHs256:
        return state_->VerifyHs256(input, signature);
      case Algorithm::kEs256:
        return state_->VerifyEs256(input, signature);
      case Algorithm::kRs256:
        return state_->VerifyRs256(input, signature);
      case Algorithm::kEdDsa:
        return state_->VerifyEdDsa(input, signature);
    }
    return false;
  };
  if (verified()) return true;
  ERR_clear_error();
  return false;
}

}  // namespace keys
