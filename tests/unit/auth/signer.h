// Signs tokens for tests, as an issuer would and as an attacker could. Keys are made when they are
// first asked for and live as long as the program.
#ifndef TESTS_UNIT_AUTH_SIGNER_H_
#define TESTS_UNIT_AUTH_SIGNER_H_

#include <openssl/evp.h>

#include <string>
#include <string_view>

#include "handler/auth/verification_key.h"

namespace keys::test {

std::string EncodeBase64url(std::string_view bytes);
std::string DecodeHex(std::string_view hex);
std::string HmacSha256(std::string_view secret, std::string_view input);
std::string Sha256(std::string_view input);

class Signer {
 public:
  // One of several keys of this algorithm, by number.
  static const Signer& Of(Algorithm algorithm, int number = 0);

  Algorithm algorithm() const { return algorithm_; }

  // The key as a JWK with this kid (none when empty) and further members such as `,"use":"sig"`.
  std::string Jwk(std::string_view kid, std::string_view more = "") const;
  // HS256 only.
  const std::string& secret() const { return secret_; }
  // The public key in other forms, for those who would make it a secret.
  std::string PublicPem() const;
  std::string PublicDer() const;

  // The signature as JWS writes it.
  std::string Sign(std::string_view input) const;
  // The compact form of these two JSON texts.
  std::string Token(std::string_view header, std::string_view claims) const;

  // ES256: the signature in DER. RS256: the private operation on a whole block, and a PSS
  // signature.
  std::string SignDer(std::string_view input) const;
  std::string RawRsa(std::string_view block) const;
  std::string SignPss(std::string_view input) const;

 private:
  explicit Signer(Algorithm algorithm);
  std::string SignWith(std::string_view input, int rsa_padding) const;
  std::string Number(const char* parameter) const;

  Algorithm algorithm_;
  std::string secret_;
  EVP_PKEY* key_ = nullptr;
};

// Header and claims encoded and joined, and a signature given as bytes.
std::string SigningInput(std::string_view header, std::string_view claims);
std::string Assemble(std::string_view signing_input, std::string_view signature);

}  // namespace keys::test

#endif  // TESTS_UNIT_AUTH_SIGNER_H_
