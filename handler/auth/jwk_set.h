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
// Loading fails as a whole when the text is not a JWK set within bounds, when the secret has the
// wrong length, and when no key that verifies is left, the secret counted.
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
// A public key is never used as a secret: each key has exactly one algorithm.
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
  // Either text may be absent. Throws std::runtime_error when OpenSSL fails, never because of what
  // the texts say.
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

// The result of loading: there is a set exactly when there is no problem. The sentences name a key
// by its kid or, without one, by its position; they contain no secret.
struct LoadedKeys {
  std::unique_ptr<const JwkSet> set;
  std::vector<std::string> problems;
  std::vector<std::string> skipped;
  bool has_no_key = false;  // the one problem: a JWK set without a key that verifies
};

}  // namespace keys

#endif  // HANDLER_AUTH_JWK_SET_H_
