#include "handler/auth/token_cache.h"

#include <optional>
#include <utility>

namespace keys {

TokenCache::TokenCache(TokenPolicy policy, size_t capacity)
    : policy_(std::move(policy)), verified_(capacity) {}

Verdict TokenCache::Verify(std::string_view token, const JwkSet& keys, UnixTime now, bool* hit) {
  if (hit != nullptr) *hit = false;
  if (token.size() > kMaxTokenLength) return TokenRefusal::kTooLong;
  if (generation_ != keys.generation()) {
    verified_.Clear();
    generation_ = keys.generation();
  }

  const Sha256::Digest digest = sha256_.Hash(token);
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
