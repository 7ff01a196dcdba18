// Tells whether 32 bytes are a public key that Ed25519 may be trusted with (RFC 8032
// section 5.1.3).
//
// OpenSSL takes any 32 bytes as a public key and finds out at each signature. Here a key is
// examined once: the encoding is canonical, the point lies on the curve, and it is none of the
// eight points of small order, under which one signature fits many messages.
#ifndef HANDLER_AUTH_ED25519_POINT_H_
#define HANDLER_AUTH_ED25519_POINT_H_

#include <cstddef>
#include <string_view>

namespace keys {

inline constexpr size_t kEd25519Size = 32;

// Any other length is false. Throws std::runtime_error when OpenSSL cannot compute.
bool IsGoodEd25519Point(std::string_view encoded);

}  // namespace keys

#endif  // HANDLER_AUTH_ED25519_POINT_H_
