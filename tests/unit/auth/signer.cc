#include "tests/unit/auth/signer.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

namespace keys::test {
namespace {

struct OpenSslDelete {
  void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
  void operator()(EVP_PKEY_CTX* p) const { EVP_PKEY_CTX_free(p); }
  void operator()(BIGNUM* p) const { BN_free(p); }
  void operator()(BIO* p) const { BIO_free(p); }
};

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* Bytes(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

void Need(bool good) {
  if (!good) throw std::runtime_error("OpenSSL failed a test's signer");
}

// ECDSA's SEQUENCE { INTEGER r, INTEGER s } as r||s.
std::string FromDer(std::string_view der) {
  std::string raw;
  size_t at = 2;
  for (int i = 0; i < 2; ++i) {
    const size_t length = static_cast<unsigned char>(der[at + 1]);
    std::string number(der.substr(at + 2, length));
    if (number.size() > 32) number.erase(0, number.size() - 32);
    raw += std::string(32 - number.size(), '\0') + number;
    at += 2 + length;
  }
  return raw;
}

}  // namespace

std::string EncodeBase64url(std::string_view bytes) {
  std::string text(bytes.size() / 3 * 4 + 5, '\0');
  const int size = EVP_EncodeBlock(Bytes(text), Bytes(bytes), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

std::string DecodeHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

std::string HmacSha256(std::string_view secret, std::string_view input) {
  std::string mac(32, '\0');
  Need(HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), Bytes(input),
            input.size(), Bytes(mac), nullptr) != nullptr);
  return mac;
}

std::string Sha256(std::string_view input) {
  std::string hash(32, '\0');
  Need(EVP_Digest(input.data(), input.size(), Bytes(hash), nullptr, EVP_sha256(), nullptr) == 1);
  return hash;
}

const Signer& Signer::Of(Algorithm algorithm, int number) {
  // Never destroyed: OpenSSL may be gone by then.
  static auto& made = *new std::map<std::pair<Algorithm, int>, Signer>;
  const auto found = made.find({algorithm, number});
  if (found != made.end()) return found->second;
  return made.emplace(std::pair(algorithm, number), Signer(algorithm)).first->second;
}

Signer::Signer(Algorithm algorithm) : algorithm_(algorithm) {
  switch (algorithm) {
    case Algorithm::kHs256:
      secret_.resize(40);
      Need(RAND_bytes(Bytes(secret_), static_cast<int>(secret_.size())) == 1);
      break;
    case Algorithm::kEs256:
      key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
      break;
    case Algorithm::kRs256:
      key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{2048});
      break;
    case Algorithm::kEdDsa:
      key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
      break;
  }
  Need(algorithm == Algorithm::kHs256 || key_ != nullptr);
}

std::string Signer::Number(const char* parameter) const {
  BIGNUM* number = nullptr;
  Need(EVP_PKEY_get_bn_param(key_, parameter, &number) == 1);
  const std::unique_ptr<BIGNUM, OpenSslDelete> owned(number);
  const bool coordinate = algorithm_ == Algorithm::kEs256;
  std::string bytes(coordinate ? 32 : static_cast<size_t>(BN_num_bytes(number)), '\0');
  Need(BN_bn2binpad(number, Bytes(bytes), static_cast<int>(bytes.size())) > 0);
  return EncodeBase64url(bytes);
}

std::string Signer::Jwk(std::string_view kid, std::string_view more) const {
  std::string jwk = "{";
  if (!kid.empty()) jwk += "\"kid\":\"" + std::string(kid) + "\",";
  switch (algorithm_) {
    case Algorithm::kHs256:
      jwk += R"("kty":"oct","k":")" + EncodeBase64url(secret_);
      break;
    case Algorithm::kEs256:
      jwk += R"("kty":"EC","crv":"P-256","x":")" + Number(OSSL_PKEY_PARAM_EC_PUB_X) + R"(","y":")" +
             Number(OSSL_PKEY_PARAM_EC_PUB_Y);
      break;
    case Algorithm::kRs256:
      jwk += R"("kty":"RSA","e":"AQAB","n":")" + Number(OSSL_PKEY_PARAM_RSA_N);
      break;
    case Algorithm::kEdDsa: {
      std::string x(32, '\0');
      size_t size = x.size();
      Need(EVP_PKEY_get_raw_public_key(key_, Bytes(x), &size) == 1);
      jwk += R"("kty":"OKP","crv":"Ed25519","x":")" + EncodeBase64url(x);
      break;
    }
  }
  return jwk + "\"" + std::string(more) + "}";
}

std::string Signer::PublicPem() const {
  const std::unique_ptr<BIO, OpenSslDelete> out(BIO_new(BIO_s_mem()));
  Need(PEM_write_bio_PUBKEY(out.get(), key_) == 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<size_t>(size)};
}

std::string Signer::PublicDer() const {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key_, &der);
  Need(size > 0);
  const std::string bytes(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return bytes;
}

std::string Signer::SignWith(std::string_view input, int rsa_padding) const {
  const std::unique_ptr<EVP_MD_CTX, OpenSslDelete> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;
  const EVP_MD* const digest = algorithm_ == Algorithm::kEdDsa ? nullptr : EVP_sha256();
  Need(EVP_DigestSignInit(context.get(), &parameters, digest, nullptr, key_) == 1);
  if (algorithm_ == Algorithm::kRs256) {
    Need(EVP_PKEY_CTX_set_rsa_padding(parameters, rsa_padding) == 1);
  }
  size_t size = 0;
  Need(EVP_DigestSign(context.get(), nullptr, &size, Bytes(input), input.size()) == 1);
  std::string signature(size, '\0');
  Need(EVP_DigestSign(context.get(), Bytes(signature), &size, Bytes(input), input.size()) == 1);
  signature.resize(size);
  return signature;
}

std::string Signer::Sign(std::string_view input) const {
  if (algorithm_ == Algorithm::kHs256) return HmacSha256(secret_, input);
  const std::string signature = SignWith(input, RSA_PKCS1_PADDING);
  return algorithm_ == Algorithm::kEs256 ? FromDer(signature) : signature;
}

std::string Signer::SignDer(std::string_view input) const {
  return SignWith(input, 0);
}

std::string Signer::SignPss(std::string_view input) const {
  return SignWith(input, RSA_PKCS1_PSS_PADDING);
}

std::string Signer::RawRsa(std::string_view block) const {
  const std::unique_ptr<EVP_PKEY_CTX, OpenSslDelete> context(
      EVP_PKEY_CTX_new_from_pkey(nullptr, key_, nullptr));
  Need(EVP_PKEY_sign_init(context.get()) == 1);
  Need(EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_NO_PADDING) == 1);
  std::string signature(256, '\0');
  size_t size = signature.size();
  Need(EVP_PKEY_sign(context.get(), Bytes(signature), &size, Bytes(block), block.size()) == 1);
  return signature;
}

std::string SigningInput(std::string_view header, std::string_view claims) {
  return EncodeBase64url(header) + "." + EncodeBase64url(claims);
}

std::string Assemble(std::string_view signing_input, std::string_view signature) {
  return std::string(signing_input) + "." + EncodeBase64url(signature);
}

std::string Signer::Token(std::string_view header, std::string_view claims) const {
  const std::string input = SigningInput(header, claims);
  return Assemble(input, Sign(input));
}

}  // namespace keys::test
