// The keys that verify session tokens: a JWK set (RFC 7517) and the legacy secret, loaded together.
// Immutable once made.
//
// Loading. A key of the set is one of these, or is skipped with its reason (RFC 7517 section 5): a
// key that we cannot use never takes the others down.
//
//   kty   crv       alg, where given     verifies
//   oct             HS256                HS256
//   EC    P-256     ES256                ES256
//   RSA             RS256                RS256
//   OKP   Ed25519   EdDSA, Ed25519       EdDSA
//
//   skipped, too: `use` other than `sig`; `key_ops` without `verify`; a private member (d, p, q,
//   dp, dq, qi, oth) in EC, RSA or OKP; a parameter missing, of the wrong type, or refused by
//   verification_key.h; two members of one name; a kid that different keys have (all of them).
//   The same key twice is one.
//
// Refused as a whole: text that is no JWK set within bounds, a secret of the wrong length, and what
// leaves no key that verifies, the secret counted.
//
// The secret is taken as the raw bytes of its text, as Supabase does: not base64-decoded. It is a
// key for HS256 without a kid.
//
// Which keys a token is tried with, by its header:
//
//   kid                      keys                                           otherwise
//   of a key of that alg     that key
//   of a key of another alg                                                 kAlgorithmMismatch
//   of no key                those of that alg without a kid                none: kUnknownKey
//   absent                   those of that alg, those without a kid first   none: kUnknownKey
//   any, alg none of ours                                                   kAlgorithm
//
// At most kMaxTriedKeys are tried. Supabase writes a kid into the tokens that it signs with the
// legacy secret, which has none; its self-hosted set holds the secret as an `oct` key without one.
// No public key is ever a secret: a key has one algorithm from the day it is made.
#ifndef HANDLER_AUTH_JWK_SET_H_
#define HANDLER_AUTH_JWK_SET_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "handler/auth/token_refusal.h"
#include "handler/auth/verification_key.h"

namespace keys {

inline constexpr size_t kMaxJwkSetLength = 64 * 1024;
inline constexpr size_t kMaxKeys = 64;
inline constexpr size_t kMaxTriedKeys = 4;

struct LoadedKeys;

class JwkSet {
 public:
  // Either text may be absent. Never throws for what the texts say; std::runtime_error when OpenSSL
  // fails us.
  static LoadedKeys Load(std::optional<std::string_view> jwk_set,
                         std::optional<std::string_view> secret);

  // The keys to try for a token's header, at least one: the table above. Valid as long as the set.
  class Candidates {
   public:
    const VerificationKey* const* begin() const { return keys_.data(); }
    const VerificationKey* const* end() const { return keys_.data() + size_; }
    size_t size() const { return size_; }

   private:
    friend class JwkSet;
    void Add(const VerificationKey& key) {
      if (size_ < keys_.size()) keys_[size_++] = &key;
    }
    std::array<const VerificationKey*, kMaxTriedKeys> keys_{};
    size_t size_ = 0;
  };
  std::variant<Candidates, TokenRefusal> Find(std::optional<std::string_view> kid,
                                              std::string_view alg) const;

  // How many keys verify, the secret counted.
  size_t size() const { return keys_.size(); }

  // Differs between any two sets that this process made.
  uint64_t generation() const { return generation_; }

 private:
  struct NamedKey {
    std::optional<std::string> kid;
    VerificationKey key;
  };
  friend class JwkSetLoader;
  JwkSet();

  std::vector<NamedKey> keys_;  // those without a kid first, the secret before all
  uint64_t generation_;
};

// What came of loading: a set exactly when there are no problems. Sentences name the key by its
// kid, or by its place where it has none; they hold no secret.
struct LoadedKeys {
  std::unique_ptr<const JwkSet> set;
  std::vector<std::string> problems;
  std::vector<std::string> skipped;
  bool has_no_key = false;  // the one problem: a JWK set without a key that verifies
};

}  // namespace keys

#endif  // HANDLER_AUTH_JWK_SET_H_
