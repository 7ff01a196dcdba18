#include "handler/base/json_reader.h"

#include <rapidjson/reader.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "handler/base/text.h"

namespace keys {
namespace {

// Turns RapidJSON's events into values that know their place.
class Scanner {
 public:
  Scanner(size_t unique_depth, JsonVisitor& visitor)
      : unique_depth_(unique_depth), visitor_(visitor) {}

  bool Null() { return Report(JsonType::kNull, {}); }
  bool Bool(bool value) { return Report(value ? JsonType::kTrue : JsonType::kFalse, {}); }
  bool RawNumber(const char* text, rapidjson::SizeType size, bool) {
    return Report(JsonType::kNumber, {text, size});
  }
  bool String(const char* text, rapidjson::SizeType size, bool) {
    return Report(JsonType::kString, {text, size});
  }
  bool StartObject() { return Report(JsonType::kObject, {}) && Enter(); }
  bool StartArray() { return Report(JsonType::kArray, {}) && Enter(); }
  bool EndObject(rapidjson::SizeType) { return Leave(); }
  bool EndArray(rapidjson::SizeType) { return Leave(); }

  bool Key(const char* text, rapidjson::SizeType size, bool) {
    Container& container = open_[depth_];
    container.name = {text, size};
    if (depth_ > unique_depth_) return true;
    for (size_t i = container.first_member; i < members_; ++i) {
      if (member_names_[i] == container.name) return false;
    }
    if (members_ == member_names_.size()) return false;
    member_names_[members_++] = container.name;
    return true;
  }

  // Never called with kParseNumbersAsStringsFlag; the reader asks for them all the same.
  bool Int(int) { return false; }
  bool Uint(unsigned) { return false; }
  bool Int64(int64_t) { return false; }
  bool Uint64(uint64_t) { return false; }
  bool Double(double) { return false; }

 private:
  struct Container {
    std::string_view name;    // of the member being read
    size_t first_member = 0;  // where its names begin in member_names_
  };

  bool Report(JsonType type, std::string_view text) {
    return visitor_.Value({depth_, open_[depth_].name,
                           depth_ == 0 ? std::string_view() : open_[depth_ - 1].name, type, text});
  }

  bool Enter() {
    if (depth_ == kMaxJsonDepth) return false;
    open_[++depth_] = {{}, members_};
    return true;
  }

  bool Leave() {
    members_ = open_[depth_].first_member;
    --depth_;
    return true;
  }

  const size_t unique_depth_;
  JsonVisitor& visitor_;
  std::array<Container, kMaxJsonDepth + 1> open_;  // open_[0] is around the whole text
  size_t depth_ = 0;
  std::array<std::string_view, kMaxJsonMembers> member_names_;
  size_t members_ = 0;
};

}  // namespace

bool ReadJson(char* text, size_t size, size_t unique_depth, JsonVisitor& visitor) {
  // Not left to RapidJSON 1.1.0: its own check takes as many bytes as a first byte announces, past
  // the end of the text.
  if (std::memchr(text, '\0', size) != nullptr || !IsUtf8({text, size})) return false;
  text[size] = '\0';

  // The iterative reader keeps a few words a level on a stack of its own, which this holds whole.
  constexpr size_t kReaderStack = 4096;
  alignas(std::max_align_t) char memory[2 * kReaderStack];
  rapidjson::MemoryPoolAllocator<> allocator(memory, sizeof memory);
  rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, rapidjson::MemoryPoolAllocator<>>
      reader(&allocator, kReaderStack);

  Scanner scanner(unique_depth, visitor);
  rapidjson::InsituStringStream stream(text);
  constexpr unsigned kFlags = rapidjson::kParseInsituFlag | rapidjson::kParseIterativeFlag |
                              rapidjson::kParseNumbersAsStringsFlag;
  return !reader.Parse<kFlags>(stream, scanner).IsError();
}

}  // namespace keys
