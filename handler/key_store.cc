#include "handler/key_store.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "list_keys_sql.h"

namespace keys {
namespace {

// The columns of sql/list_keys.sql, in its order.
enum Column {
  kAdmitted,
  kMinuteLimit,
  kMinuteCount,
  kMinuteEnds,
  kDayLimit,
  kDayCount,
  kDayEnds,
  kNow,
  kId,
  kKeyPrefix,
  kName,
  kTier,
  kScopes,
  kRequestsPerMinute,
  kRequestsPerDay,
  kTotalRequests,
  kLastUsedAt,
  kCreatedAt,
  kExpiresAt,
  kRevokedAt,
  kColumns
};

// Reads PostgreSQL's binary values (the *send functions of its source), all big-endian. A length
// that is not the type's makes the whole reading bad.
class BinaryReader {
 public:
  explicit BinaryReader(const Rows& rows) : rows_(rows) {}

  bool good() const { return good_; }

  template <typename Integer>
  Integer Number(int row, int column) {
    const std::string_view bytes = rows_.Bytes(row, column);
    if (bytes.size() != sizeof(Integer)) return Bad<Integer>();
    return FromBigEndian<Integer>(bytes);
  }

  bool Boolean(int row, int column) { return Number<uint8_t>(row, column) != 0; }

  DatabaseTime Time(int row, int column) {
    // timestamptz: microseconds since 2000-01-01.
    constexpr DatabaseTime kEpoch = std::chrono::sys_days(std::chrono::January / 1 / 2000);
    return kEpoch + std::chrono::microseconds(Number<int64_t>(row, column));
  }

  std::optional<DatabaseTime> OptionalTime(int row, int column) {
    if (rows_.IsNull(row, column)) return std::nullopt;
    return Time(row, column);
  }

  Uuid Identifier(int row, int column) {
    const std::string_view bytes = rows_.Bytes(row, column);
    Uuid uuid;
    if (bytes.size() != uuid.bytes.size()) return Bad<Uuid>();
    std::memcpy(uuid.bytes.data(), bytes.data(), bytes.size());
    return uuid;
  }

  // text[]: dimensions, has-null flag, element type, then per dimension length and lower bound,
  // then each element's length and bytes.
  size_t Texts(int row, int column, std::vector<std::string_view>& texts) {
    std::string_view bytes = rows_.Bytes(row, column);
    const auto dimensions = Take(bytes);
    Take(bytes);
    Take(bytes);
    if (dimensions == 0) return 0;
    const auto length = Take(bytes);
    Take(bytes);
    if (dimensions != 1 || length < 0) return Bad<size_t>();
    for (int32_t i = 0; i < length; ++i) {
      const auto size = Take(bytes);
      if (!good_ || size < 0 || static_cast<size_t>(size) > bytes.size()) return Bad<size_t>();
      texts.push_back(bytes.substr(0, static_cast<size_t>(size)));
      bytes.remove_prefix(static_cast<size_t>(size));
    }
    return static_cast<size_t>(length);
  }

 private:
  template <typename Integer>
  static Integer FromBigEndian(std::string_view bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(Integer); ++i) {
      value = value << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return static_cast<Integer>(value);
  }

  int32_t Take(std::string_view& bytes) {
    if (bytes.size() < sizeof(int32_t)) return Bad<int32_t>();
    const auto value = FromBigEndian<int32_t>(bytes);
    bytes.remove_prefix(sizeof(int32_t));
    return value;
  }

  template <typename T>
  T Bad() {
    good_ = false;
    return T{};
  }

  const Rows& rows_;
  bool good_ = true;
};

}  // namespace

std::string ListKeysStatement(bool check_session) {
  return check_session ? kListKeysSql : kListKeysWithoutSessionSql;
}

bool ReadKeyList(const Rows& rows, KeyList& list) {
  list.keys.clear();
  list.scopes.clear();
  list.live_session = rows.count() > 0;
  if (rows.columns() != kColumns) return false;
  if (!list.live_session) return true;

  BinaryReader reader(rows);
  list.admitted = reader.Boolean(0, kAdmitted);
  list.minute = {reader.Number<int32_t>(0, kMinuteLimit), reader.Number<int32_t>(0, kMinuteCount),
                 reader.Time(0, kMinuteEnds)};
  list.day = {reader.Number<int32_t>(0, kDayLimit), reader.Number<int32_t>(0, kDayCount),
              reader.Time(0, kDayEnds)};
  list.now = reader.Time(0, kNow);
  if (rows.IsNull(0, kId)) return reader.good();

  list.keys.reserve(static_cast<size_t>(rows.count()));
  for (int row = 0; row < rows.count(); ++row) {
    ApiKey& key = list.keys.emplace_back();
    key.id = reader.Identifier(row, kId);
    key.key_prefix = rows.Bytes(row, kKeyPrefix);
    key.name = rows.Bytes(row, kName);
    key.tier = rows.Bytes(row, kTier);
    key.first_scope = list.scopes.size();
    key.scopes = reader.Texts(row, kScopes, list.scopes);
    key.requests_per_minute = reader.Number<int32_t>(row, kRequestsPerMinute);
    key.requests_per_day = reader.Number<int32_t>(row, kRequestsPerDay);
    key.total_requests = reader.Number<int64_t>(row, kTotalRequests);
    key.last_used_at = reader.OptionalTime(row, kLastUsedAt);
    key.created_at = reader.Time(row, kCreatedAt);
    key.expires_at = reader.OptionalTime(row, kExpiresAt);
    key.revoked_at = reader.OptionalTime(row, kRevokedAt);
  }
  // Oldest first. That is the order of the index which the plan reads, so there is hardly ever
  // anything to sort.
  const auto older = [](const ApiKey& one, const ApiKey& other) {
    return std::tie(one.created_at, one.id.bytes) < std::tie(other.created_at, other.id.bytes);
  };
  if (!std::is_sorted(list.keys.begin(), list.keys.end(), older)) {
    std::sort(list.keys.begin(), list.keys.end(), older);
  }
  return reader.good();
}

}  // namespace keys
