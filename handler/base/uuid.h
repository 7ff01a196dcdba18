// A UUID (RFC 4122) as its 16 bytes, in the order in which PostgreSQL's binary format sends them.
#ifndef HANDLER_BASE_UUID_H_
#define HANDLER_BASE_UUID_H_

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace keys {

struct Uuid {
  std::array<unsigned char, 16> bytes{};

  friend bool operator==(const Uuid&, const Uuid&) = default;
  // PostgreSQL's order.
  friend bool operator<(const Uuid& one, const Uuid& other) { return one.bytes < other.bytes; }
};

// Exactly 8-4-4-4-12 hexadecimal digits in either case; anything else is nullopt.
std::optional<Uuid> ParseUuid(std::string_view text);

// Writes the 36 lower-case characters to `out`, without a terminator.
void FormatUuid(const Uuid& uuid, char* out);

std::string ToString(const Uuid& uuid);

}  // namespace keys

#endif  // HANDLER_BASE_UUID_H_
