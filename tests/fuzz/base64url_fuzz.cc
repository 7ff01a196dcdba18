// base64url: a text that is accepted has exactly one spelling, and decodes in place as elsewhere.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "handler/base/base64url.h"

namespace {

// The spelling of these bytes, by the alphabet of RFC 4648 section 5.
std::string Encode(std::string_view bytes) {
  static constexpr char kLetters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  uint32_t bits = 0;
  int count = 0;
  for (const char byte : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(byte);
    for (count += 8; count >= 6; count -= 6) text += kLetters[bits >> (count - 6) & 63];
  }
  if (count > 0) text += kLetters[bits << (6 - count) & 63];
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto bytes = keys::DecodeBase64url(text);
  if (bytes && Encode(*bytes) != text) std::abort();

  std::string in_place(text);
  const auto length = keys::DecodeBase64url(in_place, in_place.data(), in_place.size());
  if (length.has_value() != bytes.has_value()) std::abort();
  if (length && in_place.substr(0, *length) != *bytes) std::abort();

  if (bytes && !bytes->empty()) {
    std::string small(bytes->size() - 1, '\0');
    if (keys::DecodeBase64url(text, small.data(), small.size())) std::abort();
  }
  if (keys::DecodeBase64url(Encode(text)) != text) std::abort();
  return 0;
}
