#include "handler/fastcgi/request_frame.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

using namespace std::string_literals;

std::string Record(int type, const std::string& content, int id = 1, int padding = 0,
                   int version = 1) {
  std::string record;
  for (const int byte : {version, type, id >> 8, id & 255, static_cast<int>(content.size() >> 8),
                         static_cast<int>(content.size() & 255), padding, 0}) {
    record += static_cast<char>(byte);
  }
  return record + content + std::string(static_cast<size_t>(padding), '\0');
}

const std::string kBegin = Record(1, "\0\1\1\0\0\0\0\0"s);
const std::string kPair = "\3\3abcdef"s;
const std::string kRequest = kBegin + Record(4, kPair) + Record(4, "") + Record(5, "");

TEST_CASE("a request is complete with its last byte and incomplete before") {
  for (size_t length = 0; length < kRequest.size(); ++length) {
    CAPTURE(length);
    CHECK(CheckRequest(std::string_view(kRequest).substr(0, length)) == RequestState::kIncomplete);
  }
  CHECK(CheckRequest(kRequest) == RequestState::kComplete);
}

TEST_CASE("accepted and refused") {
  struct Row {
    const char* what;
    std::string bytes;
    RequestState frame;
  };
  const std::string long_name = "\x80\0\0\x90"s;  // 144 in four bytes
  const Row rows[] = {
      {"padding", kBegin + Record(4, kPair, 1, 7) + Record(4, "", 1, 3) + Record(5, ""),
       RequestState::kComplete},
      {"parameters in two records, cut within a pair",
       kBegin + Record(4, kPair.substr(0, 4)) + Record(4, kPair.substr(4)) + Record(4, "") +
           Record(5, ""),
       RequestState::kComplete},
      {"a body", kBegin + Record(4, kPair) + Record(4, "") + Record(5, "body") + Record(5, ""),
       RequestState::kComplete},
      {"no parameters", kBegin + Record(4, "") + Record(5, ""), RequestState::kComplete},
      {"a length of four bytes",
       kBegin + Record(4, long_name + "\0"s + std::string(144, 'n')) + Record(4, "") +
           Record(5, ""),
       RequestState::kComplete},
      {"another version", Record(1, "\0\1\1\0\0\0\0\0"s, 1, 0, 2), RequestState::kMalformed},
      {"the authorizer's role", Record(1, "\0\2\1\0\0\0\0\0"s), RequestState::kMalformed},
      {"id 0", Record(1, "\0\1\1\0\0\0\0\0"s, 0), RequestState::kMalformed},
      {"a short BEGIN_REQUEST", Record(1, "\0\1\1"s), RequestState::kMalformed},
      {"no BEGIN_REQUEST", Record(4, kPair), RequestState::kMalformed},
      {"two BEGIN_REQUEST", kBegin + kBegin, RequestState::kMalformed},
      {"a management record", Record(9, "", 0), RequestState::kMalformed},
      {"ABORT_REQUEST in the middle", kBegin + Record(2, ""), RequestState::kMalformed},
      {"another id in the middle", kBegin + Record(4, kPair, 2), RequestState::kMalformed},
      {"STDIN before the parameters end", kBegin + Record(5, ""), RequestState::kMalformed},
      {"a name longer than the parameters",
       kBegin + Record(4, "\x7f\0x"s) + Record(4, "") + Record(5, ""), RequestState::kMalformed},
      {"a length near 2^31",
       kBegin + Record(4, "\xff\xff\xff\xff\xff\xff\xff\xff"s) + Record(4, "") + Record(5, ""),
       RequestState::kMalformed},
      {"a length that is cut off", kBegin + Record(4, "\x80\0"s) + Record(4, "") + Record(5, ""),
       RequestState::kMalformed},
      {"a second request behind the first", kRequest + kRequest, RequestState::kMalformed},
      {"HTTP instead", "GET / HTTP/1.1\r\n\r\n", RequestState::kMalformed},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(CheckRequest(row.bytes) == row.frame);
  }
}

TEST_CASE("a request over the bound is refused as soon as it shows") {
  std::string bytes = kBegin;
  while (bytes.size() + 60000 < kMaxRequestLength) bytes += Record(4, std::string(60000, '\0'));
  CHECK(CheckRequest(bytes) == RequestState::kIncomplete);
  bytes += Record(4, std::string(60000, '\0')).substr(0, 8);
  CHECK(CheckRequest(bytes) == RequestState::kMalformed);
}

}  // namespace
}  // namespace keys
