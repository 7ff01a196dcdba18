#include "handler/base/uuid.h"

#include "handler/base/text.h"

namespace keys {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr size_t kLength = 36;

constexpr bool IsHyphenAt(size_t at) {
  return at == 8 || at == 13 || at == 18 || at == 23;
}

}  // namespace

std::optional<Uuid> ParseUuid(std::string_view text) {
  if (text.size() != kLength) return std::nullopt;
  Uuid uuid;
  size_t byte = 0;
  for (size_t i = 0; i < kLength;) {
    if (IsHyphenAt(i)) {
      if (text[i] != '-') return std::nullopt;
      ++i;
      continue;
    }
    const int high = HexDigit(text[i]);
    const int low = HexDigit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    uuid.bytes[byte++] = static_cast<unsigned char>(high << 4 | low);
    i += 2;
  }
  return uuid;
}

void FormatUuid(const Uuid& uuid, char* out) {
  size_t at = 0;
  for (const unsigned char byte : uuid.bytes) {
    if (IsHyphenAt(at)) out[at++] = '-';
    WriteHex(out + at, byte);
    at += 2;
  }
}

std::string ToString(const Uuid& uuid) {
  std::string text(kLength, '\0');
  FormatUuid(uuid, text.data());
  return text;
}

}  // namespace keys
