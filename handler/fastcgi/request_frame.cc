#include "handler/fastcgi/request_frame.h"

#include <string>

namespace keys {
namespace {

constexpr size_t kHeaderLength = 8;
constexpr unsigned kVersion = 1;
constexpr unsigned kBeginRequest = 1;
constexpr unsigned kParams = 4;
constexpr unsigned kStdin = 5;
constexpr unsigned kResponder = 1;

unsigned Byte(std::string_view bytes, size_t at) {
  return static_cast<unsigned char>(bytes[at]);
}

unsigned BigEndian(std::string_view bytes, size_t at) {
  return Byte(bytes, at) << 8 | Byte(bytes, at + 1);
}

// Reads a length of 1 or 4 bytes off the front of `params`.
bool TakeLength(std::string_view& params, size_t& length) {
  if (params.empty()) return false;
  length = Byte(params, 0);
  if (length < 128) {
    params.remove_prefix(1);
    return true;
  }
  if (params.size() < 4) return false;
  length = size_t{BigEndian(params, 0) & 0x7FFFu} << 16 | BigEndian(params, 2);
  params.remove_prefix(4);
  return true;
}

bool AreNameValuePairs(std::string_view params) {
  while (!params.empty()) {
    size_t name = 0;
    size_t value = 0;
    if (!TakeLength(params, name) || !TakeLength(params, value)) return false;
    if (name > params.size() || value > params.size() - name) return false;
    params.remove_prefix(name + value);
  }
  return true;
}

}  // namespace

RequestState CheckRequest(std::string_view bytes) {
  const RequestState more =
      bytes.size() < kMaxRequestLength ? RequestState::kIncomplete : RequestState::kMalformed;
  std::string_view params;    // when one record holds them all, as nginx sends them
  std::string joined_params;  // otherwise
  unsigned expected = kBeginRequest;
  unsigned id = 0;
  for (size_t at = 0;;) {
    const std::string_view rest = bytes.substr(at);
    if (!rest.empty() && Byte(rest, 0) != kVersion) return RequestState::kMalformed;
    if (rest.size() >= 2 && Byte(rest, 1) != expected) return RequestState::kMalformed;
    if (rest.size() < kHeaderLength) return more;
    const size_t length = BigEndian(rest, 4);
    const size_t whole = kHeaderLength + length + Byte(rest, 6);
    if (expected == kBeginRequest) {
      id = BigEndian(rest, 2);
      if (id == 0 || length != 8) return RequestState::kMalformed;
    } else if (BigEndian(rest, 2) != id) {
      return RequestState::kMalformed;
    }
    if (at + whole > kMaxRequestLength) return RequestState::kMalformed;
    if (rest.size() < whole) return more;
    const std::string_view content = rest.substr(kHeaderLength, length);
    at += whole;

    if (expected == kBeginRequest) {
      if (BigEndian(content, 0) != kResponder) return RequestState::kMalformed;
      expected = kParams;
    } else if (expected == kParams && !content.empty()) {
      if (params.empty() && joined_params.empty()) {
        params = content;
      } else {
        if (joined_params.empty()) joined_params = params;
        joined_params += content;
      }
    } else if (expected == kParams) {
      if (!AreNameValuePairs(joined_params.empty() ? params : joined_params)) {
        return RequestState::kMalformed;
      }
      expected = kStdin;
    } else if (content.empty()) {
      return at == bytes.size() ? RequestState::kComplete : RequestState::kMalformed;
    }
  }
}

}  // namespace keys
