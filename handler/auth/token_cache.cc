#include "handler/auth/token_cache.h"

#include <openssl/evp.h>

#include <optional>
#include <stdexcept>
#include <utility>

namespace keys {
namespace {

struct OpenSslDelete {
  void operator()(EVP_MD* p) const { EVP_MD_free(p); }
  void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
};

}  // namespace

// SHA-256, fetched once.
struct TokenCache::Hasher {
  std::unique_ptr<EVP_MD, OpenSslDelete> algorithm{EVP_MD_fetch(nullptr, "SHA256", nullptr)};
  std::unique_ptr<EVP_MD_CTX, OpenSslDelete> context{EVP_MD_CTX_new()};

  Digest Hash(std::string_view text) {
    Digest digest;
    if (!algorithm || !context ||
        EVP_DigestInit_ex2(context.get(), algorithm.get(), nullptr) != 1 ||
        EVP_DigestUpdate(context.get(), text.data(), text.size()) != 1 ||
        EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) != 1) {
      throw std::runtime_error("OpenSSL: SHA-256 failed");
    }
    return digest;
  }
};

TokenCache::TokenCache(TokenPolicy policy, size_t capacity)
    : policy_(std::move(policy)), hasher_(std::make_unique<Hasher>()), verified_(capacity) {}

TokenCache::~TokenCache() = default;

Verdict TokenCache::Verify(std::string_view token, const JwkSet& keys, UnixTime now, bool* hit) {
  if (hit != nullptr) *hit = false;
  if (token.size() > kMaxTokenLength) return TokenRefusal::kTooLong;
  if (generation_ != keys.generation()) {
    verified_.Clear();
    generation_ = keys.generation();
  }

  const Digest digest = hasher_->Hash(token);
  if (const Claims* const claims = verified_.Find(digest)) {
    if (hit != nullptr) *hit = true;
    if (const auto refusal = CheckTime(*claims, policy_, now)) return *refusal;
    return *claims;
  }
  const Verdict verdict = VerifyToken(token, keys, policy_, now);
  if (const auto* const claims = std::get_if<Claims>(&verdict)) verified_.Insert(digest, *claims);
  return verdict;
}

}  // namespace keys
