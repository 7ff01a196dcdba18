// A CGI response in FastCGI's wire format: STDOUT records of 65,528 bytes, of which the last may be
// shorter, an empty STDOUT record, END_REQUEST. Nothing is copied: Pieces returns the response from
// any byte on, for sendmsg(2).
//
// Source: FastCGI Specification 1.0, sections 3.3, 5.3, 5.5. Thread rule: any.
#ifndef HANDLER_FASTCGI_RESPONSE_FRAME_H_
#define HANDLER_FASTCGI_RESPONSE_FRAME_H_

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace keys {

class ResponseFrame {
 public:
  static constexpr size_t kHeader = 8;
  static constexpr size_t kMaxContent = 65528;  // so that a full record is 64 KB with its header
  static constexpr size_t kMaxRecords = 16;     // per call of Pieces

  // The response is `head` and then `body`, which outlive this. `id` is the peer's id of the
  // request.
  ResponseFrame(uint16_t id, std::string_view head, std::string_view body)
      : id_(id), head_(head), body_(body) {}

  // Bytes on the wire.
  size_t size() const;

  // The bytes from `offset` on: all of them, or as many as kMaxRecords records hold. Valid until
  // the next call. REQUIRES: offset < size().
  std::span<const iovec> Pieces(size_t offset);

 private:
  static constexpr size_t kEnd = 2 * kHeader + 8;  // an empty STDOUT, END_REQUEST
  size_t content() const { return head_.size() + body_.size(); }
  void AddRecord(size_t number, size_t skipped);
  void Add(std::string_view bytes, size_t skipped);

  uint16_t id_;
  std::string_view head_;
  std::string_view body_;
  std::array<std::array<char, kHeader>, kMaxRecords> headers_{};
  std::array<char, kEnd> end_{};
  std::array<iovec, 3 * kMaxRecords + 1> pieces_{};
  size_t count_ = 0;
};

}  // namespace keys

#endif  // HANDLER_FASTCGI_RESPONSE_FRAME_H_
