#include "handler/base/base64url.h"

#include <array>
#include <cstdint>

namespace keys {
namespace {

constexpr uint8_t kNotALetter = 0xFF;

constexpr std::array<uint8_t, 256> MakeValues() {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::array<uint8_t, 256> values{};
  values.fill(kNotALetter);
  for (size_t i = 0; i < kLetters.size(); ++i) {
    values[static_cast<unsigned char>(kLetters[i])] = static_cast<uint8_t>(i);
  }
  return values;
}

constexpr std::array<uint8_t, 256> kValues = MakeValues();

uint32_t ValueOf(char letter) {
  return kValues[static_cast<unsigned char>(letter)];
}

}  // namespace

std::optional<size_t> DecodeBase64url(std::string_view text, char* out, size_t capacity) {
  const size_t tail = text.size() % 4;
  if (tail == 1) return std::nullopt;
  const size_t size = text.size() / 4 * 3 + (tail == 0 ? 0 : tail - 1);
  if (size > capacity) return std::nullopt;

  const char* in = text.data();
  uint32_t seen = 0;  // a letter that is none sets a bit above the six of a value
  for (const char* const end = in + (text.size() - tail); in != end; in += 4) {
    const uint32_t a = ValueOf(in[0]);
    const uint32_t b = ValueOf(in[1]);
    const uint32_t c = ValueOf(in[2]);
    const uint32_t d = ValueOf(in[3]);
    seen |= a | b | c | d;
    const uint32_t bytes = a << 18 | b << 12 | c << 6 | d;
    *out++ = static_cast<char>(bytes >> 16);
    *out++ = static_cast<char>(bytes >> 8);
    *out++ = static_cast<char>(bytes);
  }
  if (tail != 0) {
    const uint32_t a = ValueOf(in[0]);
    const uint32_t b = ValueOf(in[1]);
    const uint32_t c = tail == 3 ? ValueOf(in[2]) : 0;
    seen |= a | b | c;
    const uint32_t bits = a << 12 | b << 6 | c;
    const uint32_t spare = tail == 3 ? bits & 0x3 : bits & 0x3FF;
    if (spare != 0) return std::nullopt;
    *out++ = static_cast<char>(bits >> 10);
    if (tail == 3) *out = static_cast<char>(bits >> 2);
  }
  if (seen > 63) return std::nullopt;
  return size;
}

std::optional<std::string> DecodeBase64url(std::string_view text) {
  std::string bytes(text.size(), '\0');
  const std::optional<size_t> size = DecodeBase64url(text, bytes.data(), bytes.size());
  if (!size) return std::nullopt;
  bytes.resize(*size);
  return bytes;
}

}  // namespace keys
