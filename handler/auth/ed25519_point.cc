#include "handler/auth/ed25519_point.h"

#include <openssl/bn.h>

#include <array>
#include <memory>
#include <stdexcept>

namespace keys {
namespace {

struct OpenSslDelete {
  void operator()(BIGNUM* p) const { BN_free(p); }
  void operator()(BN_CTX* p) const { BN_CTX_free(p); }
};
using Number = std::unique_ptr<BIGNUM, OpenSslDelete>;

[[noreturn]] void ThrowNoNumber() {
  throw std::runtime_error("OpenSSL: BIGNUM arithmetic failed");
}

Number FromHex(const char* hex) {
  BIGNUM* number = nullptr;
  if (BN_hex2bn(&number, hex) == 0) ThrowNoNumber();
  return Number(number);
}

// Arithmetic in the field of the curve, the integers modulo p = 2^255 - 19.
class Field {
 public:
  Number Add(const Number& a, const Number& b) const { return Apply(BN_mod_add, a, b); }
  Number Subtract(const Number& a, const Number& b) const { return Apply(BN_mod_sub, a, b); }
  Number Multiply(const Number& a, const Number& b) const { return Apply(BN_mod_mul, a, b); }

  // Throws for b = 0, which no denominator below can be.
  Number Divide(const Number& a, const Number& b) const {
    const Number inverse(BN_mod_inverse(nullptr, b.get(), p.get(), context_.get()));
    if (!inverse) ThrowNoNumber();
    return Multiply(a, inverse);
  }

  bool IsSquare(const Number& a) const {
    const int symbol = BN_kronecker(a.get(), p.get(), context_.get());
    if (symbol < -1) ThrowNoNumber();
    return symbol >= 0;
  }

  const Number p = FromHex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed");
  const Number d = FromHex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3");
  const Number one = FromHex("1");
  const Number two = FromHex("2");

 private:
  template <typename Operation>
  Number Apply(Operation operation, const Number& a, const Number& b) const {
    Number result(BN_new());
    if (!result || operation(result.get(), a.get(), b.get(), p.get(), context_.get()) != 1) {
      ThrowNoNumber();
    }
    return result;
  }

  std::unique_ptr<BN_CTX, OpenSslDelete> context_{BN_CTX_new()};
};

}  // namespace

bool IsGoodEd25519Point(std::string_view encoded) {
  if (encoded.size() != kEd25519Size) return false;
  std::array<unsigned char, kEd25519Size> bytes;
  encoded.copy(reinterpret_cast<char*>(bytes.data()), bytes.size());
  bytes.back() &= 0x7F;  // the sign of x, which decides nothing here

  const Field field;
  Number y(BN_lebin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  if (!y) ThrowNoNumber();
  if (BN_cmp(y.get(), field.p.get()) >= 0) return false;

  // Doubled three times, a point whose order divides 8 is the neutral one, where y = 1. The curve,
  // -x^2 + y^2 = 1 + d x^2 y^2, gives x^2 = (y^2 - 1) / (d y^2 + 1), and so the doubled point's
  // y = (y^2 + x^2) / (2 - y^2 + x^2): x itself is never needed.
  for (int doubled = 0; doubled < 3; ++doubled) {
    const Number yy = field.Multiply(y, y);
    const Number xx = field.Divide(field.Subtract(yy, field.one),
                                   field.Add(field.Multiply(field.d, yy), field.one));
    if (!field.IsSquare(xx)) return false;  // no x: not on the curve
    y = field.Divide(field.Add(yy, xx), field.Add(field.Subtract(field.two, yy), xx));
  }
  return !BN_is_one(y.get());
}

}  // namespace keys
