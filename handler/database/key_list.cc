#include "handler/database/key_list.h"

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "list_keys_sql.h"

namespace keys {
namespace {

// The columns of sql/list_keys.sql, in its order. Its rows are those of the tiers (the user is
// null), of the users, and of their keys (granted is null).
enum Column {
  kUser,
  kGranted,
  kMinuteLimit,  // a tier's, or that of the user's account
  kMinuteCount,
  kMinuteEnds,
  kDayLimit,
  kDayCount,
  kDayEnds,
  kNow,  // in the rows of tiers
  kId,
  kKeyPrefix,
  kName,
  kTier,  // a tier's name, or the key's
  kScopes,
  kTotalRequests,
  kLastUsedAt,
  kCreatedAt,
  kExpiresAt,
  kRevokedAt,
  kColumns
};

// Reads PostgreSQL's binary values (the *send functions of its source), all big-endian. One value
// of the wrong length makes good() false for all.
class BinaryReader {
 public:
  bool good() const { return good_; }

  template <typename Integer>
  Integer Number(std::string_view value) {
    if (value.size() != sizeof(Integer)) return Bad<Integer>();
    uint64_t number = 0;
    std::memcpy(reinterpret_cast<char*>(&number) + sizeof number - sizeof(Integer), value.data(),
                sizeof(Integer));
    return static_cast<Integer>(be64toh(number));
  }

  DatabaseTime Time(std::string_view value) {
    // timestamptz: microseconds since 2000-01-01.
    constexpr DatabaseTime kEpoch = std::chrono::sys_days(std::chrono::January / 1 / 2000);
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max() / 2;  // 'infinity' is beyond
    const auto microseconds = Number<int64_t>(value);
    if (microseconds > kMax || microseconds < -kMax) return Bad<DatabaseTime>();
    return kEpoch + std::chrono::microseconds(microseconds);
  }

  // Null is empty.
  std::optional<DatabaseTime> OptionalTime(std::string_view value) {
    if (value.empty()) return std::nullopt;
    return Time(value);
  }

  Uuid Identifier(std::string_view value) {
    Uuid uuid;
    if (value.size() != uuid.bytes.size()) return Bad<Uuid>();
    std::memcpy(uuid.bytes.data(), value.data(), value.size());
    return uuid;
  }

  // The functions below consume the front of `bytes`.

  // Reads the head of an array: dimensions, has-null flag, element type, length, lower bound.
  // Returns the number of elements. Read each with Element(), then call End().
  int32_t Array(std::string_view& bytes) {
    const auto dimensions = Take(bytes);
    Take(bytes);
    Take(bytes);
    if (dimensions == 0) return 0;
    const auto length = Take(bytes);
    Take(bytes);
    return dimensions == 1 && length >= 0 ? length : Bad<int32_t>();
  }

  std::string_view Element(std::string_view& bytes) {
    const auto size = Take(bytes);
    if (size < 0 || static_cast<size_t>(size) > bytes.size()) return Bad<std::string_view>();
    const std::string_view value = bytes.substr(0, static_cast<size_t>(size));
    bytes.remove_prefix(value.size());
    return value;
  }

  void End(std::string_view bytes) {
    if (!bytes.empty()) Refuse();
  }

  void Refuse() { good_ = false; }

 private:
  int32_t Take(std::string_view& bytes) {
    const auto number = Number<int32_t>(bytes.substr(0, sizeof(int32_t)));
    bytes.remove_prefix(std::min(bytes.size(), sizeof(int32_t)));
    return number;
  }

  template <typename T>
  T Bad() {
    good_ = false;
    return T{};
  }

  bool good_ = true;
};

}  // namespace

std::string ListKeysStatement(bool check_session) {
  return check_session ? kListKeysSql : kListKeysWithoutSessionSql;
}

bool KeyLists::Read(const Result& result) {
  result_ = &result;
  tier_count_ = 0;
  lists_.clear();
  if (result.rows() == 0 || result.row(0).columns() != kColumns) return false;
  BinaryReader reader;
  DatabaseTime now;
  int number = 0;
  for (; number < result.rows() && result.row(number).Bytes(kUser).empty(); ++number) {
    if (tier_count_ == kMaxTiers) return false;
    const Row row = result.row(number);
    tiers_[tier_count_++] = {.name = row.Bytes(kTier),
                             .requests_per_minute = reader.Number<int32_t>(row.Bytes(kMinuteLimit)),
                             .requests_per_day = reader.Number<int32_t>(row.Bytes(kDayLimit))};
    now = reader.Time(row.Bytes(kNow));
  }
  for (; number < result.rows() && !result.row(number).Bytes(kGranted).empty(); ++number) {
    const Row row = result.row(number);
    lists_.push_back(
        {.user = reader.Identifier(row.Bytes(kUser)),
         .granted = reader.Number<int32_t>(row.Bytes(kGranted)),
         .minute = {reader.Number<int32_t>(row.Bytes(kMinuteLimit)),
                    reader.Number<int32_t>(row.Bytes(kMinuteCount)),
                    reader.Time(row.Bytes(kMinuteEnds))},
         .day = {reader.Number<int32_t>(row.Bytes(kDayLimit)),
                 reader.Number<int32_t>(row.Bytes(kDayCount)), reader.Time(row.Bytes(kDayEnds))},
         .now = now});
    if (lists_.back().granted < 0) return false;
  }
  // The keys of a user follow each other, in the order of the users' rows.
  auto list = lists_.begin();
  for (; number < result.rows(); ++number) {
    const Row row = result.row(number);
    const Uuid user = reader.Identifier(row.Bytes(kUser));
    while (list != lists_.end() && list->user != user) ++list;
    if (list == lists_.end() || !row.Bytes(kGranted).empty()) return false;
    if (list->keys++ == 0) list->first_row = number;
  }
  return reader.good() && tier_count_ > 0;
}

const ApiKey* KeyLists::Key(const KeyList& list, size_t position) {
  const Row row = result_->row(list.first_row + static_cast<int>(position));
  BinaryReader reader;
  key_.id = reader.Identifier(row.Bytes(kId));
  key_.key_prefix = row.Bytes(kKeyPrefix);
  key_.name = row.Bytes(kName);
  key_.tier = row.Bytes(kTier);
  key_.total_requests = reader.Number<int64_t>(row.Bytes(kTotalRequests));
  key_.last_used_at = reader.OptionalTime(row.Bytes(kLastUsedAt));
  key_.created_at = reader.Time(row.Bytes(kCreatedAt));
  key_.expires_at = reader.OptionalTime(row.Bytes(kExpiresAt));
  key_.revoked_at = reader.OptionalTime(row.Bytes(kRevokedAt));

  const auto end = tiers_.begin() + static_cast<std::ptrdiff_t>(tier_count_);
  const auto tier =
      std::find_if(tiers_.begin(), end, [&](const Tier& one) { return one.name == key_.tier; });
  if (tier == end) return nullptr;
  key_.requests_per_minute = tier->requests_per_minute;
  key_.requests_per_day = tier->requests_per_day;

  key_.scopes.clear();
  std::string_view scopes = row.Bytes(kScopes);
  const int32_t count = reader.Array(scopes);
  for (int32_t i = 0; i < count && reader.good(); ++i) {
    key_.scopes.push_back(reader.Element(scopes));
  }
  reader.End(scopes);
  return reader.good() ? &key_ : nullptr;
}

}  // namespace keys
