#include "handler/base/openssl.h"

#include <openssl/err.h>

#include <stdexcept>
#include <string>

namespace keys {

void ThrowOpenSsl(const char* what) {
  char reason[256] = "no reason given";
  if (const unsigned long code = ERR_get_error()) ERR_error_string_n(code, reason, sizeof reason);
  ERR_clear_error();
  throw std::runtime_error(std::string("OpenSSL: ") + what + ": " + reason);
}

void Need(int result, const char* what) {
  if (result != 1) ThrowOpenSsl(what);
}

Sha256::Sha256() : context_(Need(EVP_MD_CTX_new(), "digest")) {}

const EVP_MD* Sha256::Algorithm() {
  static const Owned<EVP_MD> algorithm = Need(EVP_MD_fetch(nullptr, "SHA256", nullptr), "SHA256");
  return algorithm.get();
}

Sha256::Digest Sha256::Hash(std::string_view text) const {
  Digest digest;
  Need(EVP_DigestInit_ex2(context_.get(), Algorithm(), nullptr), "SHA256");
  Need(EVP_DigestUpdate(context_.get(), text.data(), text.size()), "SHA256");
  Need(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr), "SHA256");
  return digest;
}

}  // namespace keys
