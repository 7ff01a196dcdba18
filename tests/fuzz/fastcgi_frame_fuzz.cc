// The bytes of a FastCGI request: a request is complete with its last byte and not before, and
// nothing makes malformed bytes good.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "handler/fastcgi_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const keys::Frame whole = keys::LookOver(bytes);
  if (whole == keys::Frame::kComplete) {
    for (size_t length = 0; length < size; ++length) {
      if (keys::LookOver(bytes.substr(0, length)) != keys::Frame::kIncomplete) std::abort();
    }
  }
  const keys::Frame longer = keys::LookOver(std::string(bytes) + '\1');
  if (whole != keys::Frame::kIncomplete && longer != keys::Frame::kMalformed) std::abort();
  // What is good so far was so all along.
  if (whole == keys::Frame::kIncomplete && size > 0 &&
      keys::LookOver(bytes.substr(0, size - 1)) != keys::Frame::kIncomplete) {
    std::abort();
  }
  return 0;
}
