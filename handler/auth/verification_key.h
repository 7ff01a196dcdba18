// One key that verifies signatures of exactly one algorithm (RFC 7518 section 3, RFC 8037).
//
// Made once, from the raw parameters of a JWK: the key, the fetched algorithm and a context that is
// used again for each call live behind it. Every rule about a key's strength is here; what a JWK
// set says about a key (use, key_ops, alg) is jwk_set's.
//
//   algorithm  made from                      refused
//   HS256      a secret of 32 to 4096 bytes   any other length
//   ES256      x and y, 32 bytes each         a point that is not on P-256
//   RS256      modulus, exponent              a modulus under 2048 or over 8192 bits, or even; an
//                                             exponent that is even, under 3 or over 64 bits
//   EdDSA      x, 32 bytes: Ed25519           any other length
//
// Errors: a bad parameter is a value (a sentence that says what is wrong); OpenSSL failing us when
// an algorithm is fetched throws std::runtime_error with its error queue.
// Thread rule: one thread, also for const use: Verify works in the key's own context.
#ifndef HANDLER_AUTH_VERIFICATION_KEY_H_
#define HANDLER_AUTH_VERIFICATION_KEY_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace keys {

enum class Algorithm { kHs256, kEs256, kRs256, kEdDsa };

// The name in `alg`, exactly: "HS256", "ES256", "RS256", "EdDSA". RFC 9864 renames EdDSA with this
// curve "Ed25519", which is read as the same.
std::string_view NameOf(Algorithm algorithm);
std::optional<Algorithm> ParseAlgorithm(std::string_view name);

class VerificationKey {
 public:
  using Made = std::variant<VerificationKey, std::string>;  // the key, or what is wrong

  static Made Hs256(std::string_view secret);
  static Made Es256(std::string_view x, std::string_view y);
  static Made Rs256(std::string_view modulus, std::string_view exponent);
  static Made EdDsa(std::string_view x);

  VerificationKey(VerificationKey&&) noexcept;
  VerificationKey& operator=(VerificationKey&&) noexcept;
  ~VerificationKey();

  Algorithm algorithm() const { return algorithm_; }

  // True only when `signature`, as JWS writes it (ES256: 64 bytes r||s), is right for `input`.
  // Every other input is false; OpenSSL's error queue is left empty.
  bool Verify(std::string_view input, std::string_view signature) const;

 private:
  struct State;
  VerificationKey(Algorithm algorithm, std::unique_ptr<State> state);

  Algorithm algorithm_;
  std::unique_ptr<State> state_;
};

}  // namespace keys

#endif  // HANDLER_AUTH_VERIFICATION_KEY_H_
