#include "handler/auth/verification_key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include <array>
#include <stdexcept>
#include <utility>

#include "handler/auth/ed25519_point.h"

namespace keys {
namespace {

struct OpenSslDelete {
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(EVP_PKEY_CTX* p) const { EVP_PKEY_CTX_free(p); }
  void operator()(EVP_MD* p) const { EVP_MD_free(p); }
  void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
  void operator()(EVP_MAC* p) const { EVP_MAC_free(p); }
  void operator()(EVP_MAC_CTX* p) const { EVP_MAC_CTX_free(p); }
  void operator()(BIGNUM* p) const { BN_free(p); }
  void operator()(OSSL_PARAM_BLD* p) const { OSSL_PARAM_BLD_free(p); }
  void operator()(OSSL_PARAM* p) const { OSSL_PARAM_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, OpenSslDelete>;

constexpr size_t kSha256Size = 32;
constexpr size_t kCoordinateSize = 32;
constexpr size_t kMinSecret = 32;
constexpr size_t kMaxSecret = 4096;
constexpr int kMinRsaBits = 2048;
constexpr int kMaxRsaBits = 8192;
constexpr int kMaxRsaExponentBits = 64;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

[[noreturn]] void ThrowOpenSsl(const char* what) {
  char reason[256] = "no reason given";
  if (const unsigned long code = ERR_get_error()) ERR_error_string_n(code, reason, sizeof reason);
  ERR_clear_error();
  throw std::runtime_error(std::string("OpenSSL: ") + what + ": " + reason);
}

template <typename T>
Owned<T> Need(T* handle, const char* what) {
  if (handle == nullptr) ThrowOpenSsl(what);
  return Owned<T>(handle);
}

void Need(int result, const char* what) {
  if (result != 1) ThrowOpenSsl(what);
}

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

// Writes an unsigned 32-byte number as a DER INTEGER (X.690 section 8.3); returns its end.
unsigned char* WriteInteger(const unsigned char* number, unsigned char* out) {
  size_t size = kCoordinateSize;
  while (size > 1 && *number == 0) ++number, --size;
  const bool looks_negative = (*number & 0x80) != 0;
  *out++ = 0x02;
  *out++ = static_cast<unsigned char>(size + (looks_negative ? 1 : 0));
  if (looks_negative) *out++ = 0;
  while (size-- > 0) *out++ = *number++;
  return out;
}

}  // namespace

// What the algorithm at hand needs; the rest is empty.
struct VerificationKey::State {
  Owned<EVP_MD> sha256;        // ES256, RS256
  Owned<EVP_MD_CTX> digest;    // ES256, RS256, EdDSA
  Owned<EVP_PKEY> public_key;  // ES256, RS256, EdDSA
  Owned<EVP_PKEY_CTX> verify;  // ES256, RS256
  Owned<EVP_MAC_CTX> hmac;     // HS256

  void UseSha256() {
    sha256 = Need(EVP_MD_fetch(nullptr, "SHA256", nullptr), "SHA256");
    digest = Need(EVP_MD_CTX_new(), "digest");
  }

  bool VerifyDigest(std::string_view input, const unsigned char* signature, size_t size) const {
    std::array<unsigned char, kSha256Size> hash;
    return EVP_DigestInit_ex2(digest.get(), sha256.get(), nullptr) == 1 &&
           EVP_DigestUpdate(digest.get(), input.data(), input.size()) == 1 &&
           EVP_DigestFinal_ex(digest.get(), hash.data(), nullptr) == 1 &&
           EVP_PKEY_verify(verify.get(), signature, size, hash.data(), hash.size()) == 1;
  }

  bool VerifyHs256(std::string_view input, std::string_view signature) const {
    std::array<unsigned char, kSha256Size> mac;
    size_t size = 0;
    // Without a key, init starts over with the one that the context has.
    return signature.size() == mac.size() && EVP_MAC_init(hmac.get(), nullptr, 0, nullptr) == 1 &&
           EVP_MAC_update(hmac.get(), Bytes(input), input.size()) == 1 &&
           EVP_MAC_final(hmac.get(), mac.data(), &size, mac.size()) == 1 && size == mac.size() &&
           CRYPTO_memcmp(mac.data(), signature.data(), mac.size()) == 0;
  }

  bool VerifyEs256(std::string_view input, std::string_view signature) const {
    if (signature.size() != 2 * kCoordinateSize) return false;
    std::array<unsigned char, 2 + 2 * (2 + 1 + kCoordinateSize)> der;
    unsigned char* end = WriteInteger(Bytes(signature), der.data() + 2);
    end = WriteInteger(Bytes(signature) + kCoordinateSize, end);
    der[0] = 0x30;
    der[1] = static_cast<unsigned char>(end - der.data() - 2);
    return VerifyDigest(input, der.data(), static_cast<size_t>(end - der.data()));
  }

  bool VerifyRs256(std::string_view input, std::string_view signature) const {
    return signature.size() == static_cast<size_t>(EVP_PKEY_get_size(public_key.get())) &&
           VerifyDigest(input, Bytes(signature), signature.size());
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
  state->UseSha256();
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
  state->UseSha256();
  Need(EVP_PKEY_CTX_set_signature_md(state->verify.get(), state->sha256.get()), "RSA digest");
  return VerificationKey(Algorithm::kRs256, std::move(state));
}

VerificationKey::Made VerificationKey::EdDsa(std::string_view x) {
  if (x.size() != kEd25519Size) return "x is not 32 bytes";
  if (!IsGoodEd25519Point(x)) return "x is not a point of Ed25519, or one of small order";
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
