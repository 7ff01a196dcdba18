// Owners for OpenSSL's handles, and what every user of them needs.
//
// Ownership: Owned<T> frees its handle. Need() takes the result of a call that cannot fail for what
// a client sent, and throws std::runtime_error with OpenSSL's reason when it fails all the same.
// Thread rule: one thread.
#ifndef HANDLER_BASE_OPENSSL_H_
#define HANDLER_BASE_OPENSSL_H_

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <array>
#include <memory>
#include <string_view>

namespace keys {

struct OpenSslDelete {
  void operator()(BIGNUM* p) const { BN_free(p); }
  void operator()(ECDSA_SIG* p) const { ECDSA_SIG_free(p); }
  void operator()(EVP_MAC* p) const { EVP_MAC_free(p); }
  void operator()(EVP_MAC_CTX* p) const { EVP_MAC_CTX_free(p); }
  void operator()(EVP_MD* p) const { EVP_MD_free(p); }
  void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(EVP_PKEY_CTX* p) const { EVP_PKEY_CTX_free(p); }
  void operator()(OSSL_PARAM* p) const { OSSL_PARAM_free(p); }
  void operator()(OSSL_PARAM_BLD* p) const { OSSL_PARAM_BLD_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, OpenSslDelete>;

// Throws std::runtime_error: `what` failed, and the first entry of the error queue, which is
// emptied.
[[noreturn]] void ThrowOpenSsl(const char* what);

template <typename T>
Owned<T> Need(T* handle, const char* what) {
  if (handle == nullptr) ThrowOpenSsl(what);
  return Owned<T>(handle);
}
void Need(int result, const char* what);  // 1 is success

inline const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// SHA-256. The algorithm is fetched once per process, the context is used again for each text.
class Sha256 {
 public:
  using Digest = std::array<unsigned char, 32>;

  Sha256();
  static const EVP_MD* Algorithm();

  // Throws std::runtime_error when OpenSSL fails.
  Digest Hash(std::string_view text) const;

 private:
  Owned<EVP_MD_CTX> context_;
};

}  // namespace keys

#endif  // HANDLER_BASE_OPENSSL_H_
