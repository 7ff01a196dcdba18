// The keys that verify session tokens: a JWK set (RFC 7517) and the legacy secret, loaded together
// or not at all. Immutable once made.
//
// Loading, each key of the set:
//
//   kty       crv       alg, where given     verdict
//   oct                 HS256                HS256
//   EC        P-256     ES256                ES256
//   RSA                 RS256                RS256
//   OKP       Ed25519   EdDSA                EdDSA
//   one of these, with an alg of RFC 7518 or 8037 for another kty or crv
//                                            problem: they disagree
//   anything else that is well formed        skipped, with the reason
//
//   `use` other than `sig`, or `key_ops` without `verify`    skipped: it never verifies
//   a private member (d, p, q, dp, dq, qi, oth) in EC, RSA or OKP, whatever its use    problem
//   a parameter missing, of the wrong type, or refused by verification_key.h           problem
//   two keys of one kid, skipped ones included                                         problem
//   two members of one name in a key or in the set; over 64 keys                       problem
//
// The secret is taken as the raw bytes of its text, as Supabase does: not base64-decoded.
//
// Which key a token gets (key found by kid x header alg):
//
//   kid                   alg HS256             alg ES256, RS256, EdDSA     alg other, or none
//   of a key of that alg  that key              that key                    kAlgorithm
//   of a key of another   kAlgorithmMismatch    kAlgorithmMismatch          kAlgorithm
//   of no key             the legacy secret,    kUnknownKey                 kAlgorithm
//                         else kUnknownKey
//   absent                the only key of that alg, the secret counted; none: kUnknownKey, several:
//                         kAmbiguousKey                                     kAlgorithm
//
// The legacy secret has no kid of its own, yet Supabase writes one into the tokens that it signs
// with it; so it answers for kids that name no key, as it does in Supabase's own server. No public
// key is ever a secret: a key has one algorithm from the day it is made.
#ifndef HANDLER_AUTH_JWK_SET_H_
#define HANDLER_AUTH_JWK_SET_H_

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

struct LoadedKeys;

class JwkSet {
 public:
  // Either text may be absent. Never throws for what the texts say; std::runtime_error when OpenSSL
  // fails us.
  static LoadedKeys Load(std::optional<std::string_view> jwk_set,
                         std::optional<std::string_view> secret);

  // The key for a token's header; see the table above. Valid as long as the set.
  std::variant<const VerificationKey*, TokenRefusal> Find(std::optional<std::string_view> kid,
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

  std::vector<NamedKey> keys_;
  bool has_secret_ = false;  // then it is the last of keys_
  uint64_t generation_;
};

// What came of loading: a set exactly when there are no problems. Sentences name the key by its
// kid, or by its place where it has none; they hold no secret.
struct LoadedKeys {
  std::unique_ptr<const JwkSet> set;
  std::vector<std::string> problems;
  std::vector<std::string> skipped;
};

}  // namespace keys

#endif  // HANDLER_AUTH_JWK_SET_H_
