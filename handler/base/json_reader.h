// Reads untrusted JSON text (RFC 8259) as a stream of values: strict, bounded, without recursion
// and without allocation.
//
// Numbers stay text, because RapidJSON's conversion crashes on crafted ones. The reader refuses
// invalid JSON, invalid UTF-8, NUL bytes, nesting deeper than kMaxJsonDepth, and two members of one
// name in an object that the caller asks to be checked.
#ifndef HANDLER_BASE_JSON_READER_H_
#define HANDLER_BASE_JSON_READER_H_

#include <cstddef>
#include <string_view>

namespace keys {

inline constexpr size_t kMaxJsonDepth = 32;
// The number of members that objects checked for duplicates may have, those nested in each other
// together.
inline constexpr size_t kMaxJsonMembers = 128;

enum class JsonType { kString, kNumber, kTrue, kFalse, kNull, kObject, kArray };

// One value. `depth` is the number of containers around it: 0 for the whole text, 1 for a member of
// the top-level object. `name` is the member's name, empty in an array. `parent` is the name of the
// member that holds the container around it. `text` is the decoded string or the number as it is
// written, and empty for others.
struct JsonValue {
  size_t depth;
  std::string_view name;
  std::string_view parent;
  JsonType type;
  std::string_view text;
};

// Takes the values of one text in their order; a container comes before what it holds.
class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  // False stops the scan, which then fails.
  virtual bool Value(const JsonValue& value) = 0;
};

// Reads `size` bytes at `text` in place: the buffer is the caller's, is overwritten, and must hold
// one byte more. The views handed to the visitor point into it and stay valid as long as it does.
// Names are checked for duplicates in objects whose members have a depth up to `unique_depth`.
// False when the text is refused or the visitor stopped.
bool ReadJson(char* text, size_t size, size_t unique_depth, JsonVisitor& visitor);

}  // namespace keys

#endif  // HANDLER_BASE_JSON_READER_H_
