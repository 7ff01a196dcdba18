// Remembers tokens that were verified, so that a browser's next request with the same token costs a
// hash instead of a signature (ES256: 60 us).
//
// What is remembered is that these exact bytes are genuine and what their claims are, under a
// SHA-256 of the whole token. Time is checked on every call. The other claims were checked
// against the policy on the way in, and the policy, a copy, cannot change in a cache's life.
// Only tokens that passed everything enter; forged ones cost their sender's time and displace
// nothing. A key set of another generation clears the cache before the lookup.
// Bounded as bounded_cache.h says: about 100 bytes per entry, allocated by the constructor.
//
// Errors: OpenSSL failing to hash throws std::runtime_error; no token does.
// Thread rule: one thread.
#ifndef HANDLER_AUTH_TOKEN_CACHE_H_
#define HANDLER_AUTH_TOKEN_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "handler/auth/jwk_set.h"
#include "handler/auth/jwt.h"
#include "handler/base/bounded_cache.h"
#include "handler/base/openssl.h"

namespace keys {

class TokenCache {
 public:
  explicit TokenCache(TokenPolicy policy, size_t capacity = 8192);

  // As VerifyToken. `hit`, where given, tells whether the signature was remembered.
  Verdict Verify(std::string_view token, const JwkSet& keys, UnixTime now, bool* hit = nullptr);

 private:
  TokenPolicy policy_;
  Sha256 sha256_;
  BoundedCache<Sha256::Digest, Claims> verified_;
  uint64_t generation_ = 0;
};

}  // namespace keys

#endif  // HANDLER_AUTH_TOKEN_CACHE_H_
