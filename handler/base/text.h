// Numbers, digits and UTF-8 in text, without a locale.
#ifndef HANDLER_BASE_TEXT_H_
#define HANDLER_BASE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace keys {

// In decimal, with a minus sign when it is negative.
void AppendNumber(std::string& out, int64_t number);

// The last `digits` decimal digits of `value`, which is not negative, with leading zeros. `out` is
// that long.
inline void WriteDigits(char* out, int value, int digits) {
  for (int at = digits - 1; at >= 0; --at, value /= 10) {
    out[at] = static_cast<char>('0' + value % 10);
  }
}

// Lower case, as everywhere in this program.
inline constexpr std::string_view kHexDigits = "0123456789abcdef";

// Two digits; `out` is that long.
inline void WriteHex(char* out, unsigned char byte) {
  out[0] = kHexDigits[byte >> 4];
  out[1] = kHexDigits[byte & 15];
}

// 16 digits.
void AppendHex(std::string& out, uint64_t number);

// Strict UTF-8 (RFC 3629 section 4): no overlong form, no surrogate, nothing above U+10FFFF.
bool IsUtf8(std::string_view text);

}  // namespace keys

#endif  // HANDLER_BASE_TEXT_H_
