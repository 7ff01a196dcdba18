// Strict base64url without padding (RFC 7515 section 2, RFC 4648 section 5).
//
// Each value has one text: padding, white space, letters of another alphabet and spare bits that
// are set are refused, so a token has exactly one spelling.
#ifndef HANDLER_BASE_BASE64URL_H_
#define HANDLER_BASE_BASE64URL_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace keys {

// What a text of `encoded_size` characters decodes to at most.
constexpr size_t DecodedSize(size_t encoded_size) {
  return encoded_size / 4 * 3 + 2;
}

// Decodes into `out`, which the caller owns and which holds `capacity` bytes; it may be the text's
// own memory. Returns how many bytes were written; nullopt when the text is not strict base64url or
// does not fit; `out` is then undefined. Allocates nothing.
std::optional<size_t> DecodeBase64url(std::string_view text, char* out, size_t capacity);

// Decodes into a new string.
std::optional<std::string> DecodeBase64url(std::string_view text);

}  // namespace keys

#endif  // HANDLER_BASE_BASE64URL_H_
