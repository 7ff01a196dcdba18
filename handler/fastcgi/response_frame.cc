#include "handler/fastcgi/response_frame.h"

#include <algorithm>
#include <cassert>

namespace keys {
namespace {

constexpr char kVersion = 1;
constexpr char kEndRequest = 3;
constexpr char kStdout = 6;

void WriteHeader(char* out, char type, uint16_t id, size_t length) {
  out[0] = kVersion;
  out[1] = type;
  out[2] = static_cast<char>(id >> 8);
  out[3] = static_cast<char>(id & 255);
  out[4] = static_cast<char>(length >> 8);
  out[5] = static_cast<char>(length & 255);
  out[6] = out[7] = 0;
}

}  // namespace

size_t ResponseFrame::size() const {
  const size_t records = (content() + kMaxContent - 1) / kMaxContent;
  return content() + records * kHeader + kEnd;
}

// Adds `bytes` without the first `skipped` of them.
void ResponseFrame::Add(std::string_view bytes, size_t skipped) {
  if (skipped >= bytes.size()) return;
  bytes.remove_prefix(skipped);
  pieces_[count_++] = {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
}

// Adds the record of this number without its first `skipped` bytes.
void ResponseFrame::AddRecord(size_t number, size_t skipped) {
  const size_t begin = number * kMaxContent;
  const size_t end = std::min(begin + kMaxContent, content());
  std::array<char, kHeader>& header = headers_[number % kMaxRecords];
  WriteHeader(header.data(), kStdout, id_, end - begin);
  Add({header.data(), header.size()}, skipped);
  const size_t from = begin + (skipped > kHeader ? skipped - kHeader : 0);
  Add(head_.substr(0, end), from);
  if (end > head_.size()) {
    Add(body_.substr(0, end - head_.size()), from > head_.size() ? from - head_.size() : 0);
  }
}

std::span<const iovec> ResponseFrame::Pieces(size_t offset) {
  assert(offset < size());
  count_ = 0;
  const size_t records = (content() + kMaxContent - 1) / kMaxContent;
  const size_t end = content() + records * kHeader;
  if (offset < end) {
    const size_t first = offset / (kHeader + kMaxContent);
    const size_t last = std::min(first + kMaxRecords, records);
    AddRecord(first, offset % (kHeader + kMaxContent));
    for (size_t number = first + 1; number < last; ++number) AddRecord(number, 0);
    if (last < records) return {pieces_.data(), count_};
  }
  WriteHeader(end_.data(), kStdout, id_, 0);
  WriteHeader(end_.data() + kHeader, kEndRequest, id_, kEnd - 2 * kHeader);
  Add({end_.data(), end_.size()}, offset < end ? 0 : offset - end);
  return {pieces_.data(), count_};
}

}  // namespace keys
