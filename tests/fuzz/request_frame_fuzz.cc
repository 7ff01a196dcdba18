// The bytes of a FastCGI request: a request is complete with its last byte and not before, and
// nothing makes malformed bytes good.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "handler/fastcgi/request_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const keys::RequestState whole = keys::CheckRequest(bytes);
  if (whole == keys::RequestState::kComplete) {
    for (size_t length = 0; length < size; ++length) {
      if (keys::CheckRequest(bytes.substr(0, length)) != keys::RequestState::kIncomplete)
        std::abort();
    }
  }
  const keys::RequestState longer = keys::CheckRequest(std::string(bytes) + '\1');
  if (whole != keys::RequestState::kIncomplete && longer != keys::RequestState::kMalformed)
    std::abort();
  // What is good so far was so all along.
  if (whole == keys::RequestState::kIncomplete && size > 0 &&
      keys::CheckRequest(bytes.substr(0, size - 1)) != keys::RequestState::kIncomplete) {
    std::abort();
  }
  return 0;
}
