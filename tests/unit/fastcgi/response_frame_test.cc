#include "handler/fastcgi/response_frame.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

// The bytes that `frame` gives from `offset` to its end, in as many calls as that takes.
std::string Bytes(ResponseFrame& frame, size_t offset) {
  std::string bytes;
  while (offset + bytes.size() < frame.size()) {
    for (const iovec& piece : frame.Pieces(offset + bytes.size())) {
      bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    }
  }
  return bytes;
}

size_t Number(const std::string& bytes, size_t position) {
  return size_t{static_cast<unsigned char>(bytes[position])} << 8 |
         static_cast<unsigned char>(bytes[position + 1]);
}

// The response in those bytes, which must be STDOUT records of `id`, an empty one and END_REQUEST.
std::string Parse(const std::string& bytes, uint16_t id) {
  std::string content;
  for (size_t position = 0; position + 8 <= bytes.size();) {
    REQUIRE(bytes[position] == 1);
    REQUIRE(Number(bytes, position + 2) == id);
    const size_t length = Number(bytes, position + 4);
    REQUIRE(position + 8 + length <= bytes.size());
    if (bytes[position + 1] == 3) {
      CHECK(bytes.substr(position + 8) == std::string(8, '\0'));
      return content;
    }
    REQUIRE(bytes[position + 1] == 6);
    content += bytes.substr(position + 8, length);
    position += 8 + length;
    if (length == 0) CHECK(bytes[position + 1] == 3);
  }
  FAIL("no END_REQUEST");
  return content;
}

std::string Text(size_t length, char first) {
  std::string text(length, first);
  for (size_t i = 0; i < length; i += 97) text[i] = static_cast<char>('0' + i % 10);
  return text;
}

TEST_CASE("a response of any length is whole on the wire") {
  constexpr size_t kMax = ResponseFrame::kMaxContent;
  for (const size_t head : {size_t{0}, size_t{1}, size_t{300}, kMax - 1, kMax, kMax + 1}) {
    for (const size_t body : {size_t{0}, size_t{1}, kMax - 300, kMax, 2 * kMax, 40 * kMax + 5}) {
      CAPTURE(head);
      CAPTURE(body);
      const std::string head_text = Text(head, 'h');
      const std::string body_text = Text(body, 'b');
      ResponseFrame frame(258, head_text, body_text);
      const std::string bytes = Bytes(frame, 0);
      REQUIRE(bytes.size() == frame.size());
      CHECK(Parse(bytes, 258) == head_text + body_text);
    }
  }
}

TEST_CASE("writing goes on at any byte") {
  const std::string head = Text(300, 'h');
  for (const size_t length : {size_t{0}, size_t{900}, ResponseFrame::kMaxContent - 310,
                              2 * ResponseFrame::kMaxContent - 300}) {
    const std::string body = Text(length, 'b');
    ResponseFrame frame(1, head, body);
    const std::string whole = Bytes(frame, 0);
    for (size_t offset = 0; offset < whole.size(); offset += offset % 65536 < 400 ? 1 : 8111) {
      CAPTURE(length);
      CAPTURE(offset);
      REQUIRE(Bytes(frame, offset) == whole.substr(offset));
    }
    for (size_t offset = whole.size() - 40; offset < whole.size(); ++offset) {
      CAPTURE(offset);
      REQUIRE(Bytes(frame, offset) == whole.substr(offset));
    }
  }
}

TEST_CASE("a short response is one call") {
  ResponseFrame frame(1, "Status: 200\r\n\r\n", "{}");
  size_t length = 0;
  for (const iovec& piece : frame.Pieces(0)) length += piece.iov_len;
  CHECK(length == frame.size());
}

}  // namespace
}  // namespace keys
