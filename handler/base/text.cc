#include "handler/base/text.h"

#include <charconv>
#include <cstring>

namespace keys {

void AppendNumber(std::string& out, int64_t number) {
  char digits[20];  // of the least number, with its sign
  out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
}

void AppendHex(std::string& out, uint64_t number) {
  char digits[16];
  for (size_t i = 0; i < sizeof digits; i += 2) {
    WriteHex(digits + i, static_cast<unsigned char>(number >> (56 - 4 * i)));
  }
  out.append(digits, sizeof digits);
}

bool IsUtf8(std::string_view text) {
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  for (size_t at = 0; at < text.size();) {
    uint64_t eight;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const unsigned char first = byte(at++);
    if (first < 0x80) continue;
    const size_t more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    if (first < 0xC2 || first > 0xF4 || text.size() - at < more) return false;
    const unsigned char lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned char highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (byte(at) < lowest || byte(at) > highest) return false;
    for (size_t i = 1; i < more; ++i) {
      if ((byte(at + i) & 0xC0) != 0x80) return false;
    }
    at += more;
  }
  return true;
}

}  // namespace keys
