#include "handler/database/key_list.h"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "list_keys_sql.h"

namespace keys {
namespace {

// The columns of sql/list_keys.sql, in its order.
enum Column {
  kUser,
  kGranted,
  kMinuteLimit,
  kMinuteCount,
  kMinuteEnds,
  kDayLimit,
  kDayCount,
  kDayEnds,
  kNow,
  kTiers,
  kKeys,
  kColumns
};
constexpr int32_t kTierFields = 3;     // of a ROW in the array kTiers, and
constexpr int32_t kKeyFields = 10;     // in the array kKeys; ReadTiers and ReadKey have their order
constexpr size_t kMaxTiers = 8;        // the schema has two
constexpr size_t kMaxKeysKept = 1000;  // a longer list's memory is given back

// Reads PostgreSQL's binary values (the *send functions of its source), all big-endian. A length
// that is not the type's makes the whole reading bad.
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

  std::optional<DatabaseTime> OptionalTime(const std::optional<std::string_view>& value) {
    if (!value) return std::nullopt;
    return Time(*value);
  }

  Uuid Identifier(std::string_view value) {
    Uuid uuid;
    if (value.size() != uuid.bytes.size()) return Bad<Uuid>();
    std::memcpy(uuid.bytes.data(), value.data(), value.size());
    return uuid;
  }

  // What follows takes its part off the front of `bytes`.

  // An array's dimensions, has-null flag, element type, the dimension's length and lower bound. The
  // number of its elements, each an Element; End() behind the last.
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
    const auto value = Value(bytes);
    return value ? *value : Bad<std::string_view>();
  }

  // A record's number of fields, each an Optional- or RequiredField; End() behind the last.
  int32_t Record(std::string_view& bytes) { return Take(bytes); }

  std::optional<std::string_view> OptionalField(std::string_view& bytes) {
    Take(bytes);  // its type
    return Value(bytes);
  }

  std::string_view RequiredField(std::string_view& bytes) {
    Take(bytes);
    return Element(bytes);
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

  // A value behind its length; -1: null.
  std::optional<std::string_view> Value(std::string_view& bytes) {
    const auto size = Take(bytes);
    if (size == -1) return std::nullopt;
    if (size < 0 || static_cast<size_t>(size) > bytes.size()) return Bad<std::string_view>();
    const std::string_view value = bytes.substr(0, static_cast<size_t>(size));
    bytes.remove_prefix(value.size());
    return value;
  }

  template <typename T>
  T Bad() {
    good_ = false;
    return T{};
  }

  bool good_ = true;
};

struct Tier {
  std::string_view name;
  int32_t requests_per_minute = 0;
  int32_t requests_per_day = 0;
};

using Tiers = std::array<Tier, kMaxTiers>;  // unused ones have no name

Tiers ReadTiers(BinaryReader& reader, std::string_view bytes) {
  Tiers tiers;
  const int32_t count = reader.Array(bytes);
  if (count > static_cast<int32_t>(tiers.size())) reader.Refuse();
  for (int32_t i = 0; i < count && reader.good(); ++i) {
    std::string_view fields = reader.Element(bytes);
    if (reader.Record(fields) != kTierFields) reader.Refuse();
    Tier& tier = tiers[static_cast<size_t>(i)];
    tier.name = reader.RequiredField(fields);
    tier.requests_per_minute = reader.Number<int32_t>(reader.RequiredField(fields));
    tier.requests_per_day = reader.Number<int32_t>(reader.RequiredField(fields));
    reader.End(fields);
  }
  reader.End(bytes);
  return tiers;
}

void ReadKey(BinaryReader& reader, std::string_view bytes, const Tiers& tiers, KeyList& list) {
  if (reader.Record(bytes) != kKeyFields) return reader.Refuse();
  ApiKey& key = list.keys.emplace_back();
  key.id = reader.Identifier(reader.RequiredField(bytes));
  key.key_prefix = reader.RequiredField(bytes);
  key.name = reader.RequiredField(bytes);
  key.tier = reader.RequiredField(bytes);
  std::string_view scopes = reader.RequiredField(bytes);
  key.total_requests = reader.Number<int64_t>(reader.RequiredField(bytes));
  key.last_used_at = reader.OptionalTime(reader.OptionalField(bytes));
  key.created_at = reader.Time(reader.RequiredField(bytes));
  key.expires_at = reader.OptionalTime(reader.OptionalField(bytes));
  key.revoked_at = reader.OptionalTime(reader.OptionalField(bytes));
  reader.End(bytes);

  const auto tier = std::find_if(tiers.begin(), tiers.end(),
                                 [&](const Tier& one) { return one.name == key.tier; });
  if (tier == tiers.end() || key.tier.empty()) return reader.Refuse();
  key.requests_per_minute = tier->requests_per_minute;
  key.requests_per_day = tier->requests_per_day;

  key.first_scope = list.scopes.size();
  const int32_t count = reader.Array(scopes);
  for (int32_t i = 0; i < count && reader.good(); ++i) {
    list.scopes.push_back(reader.Element(scopes));
  }
  reader.End(scopes);
  key.scopes = static_cast<size_t>(count);
}

}  // namespace

std::string ListKeysStatement(bool check_session) {
  return check_session ? kListKeysSql : kListKeysWithoutSessionSql;
}

std::optional<RowHead> ReadRowHead(const Row& row) {
  if (row.columns() != kColumns) return std::nullopt;
  BinaryReader reader;
  const RowHead head{.user = reader.Identifier(row.Bytes(kUser)),
                     .granted = reader.Number<int32_t>(row.Bytes(kGranted))};
  if (!reader.good() || head.granted < 0) return std::nullopt;
  return head;
}

bool ReadKeyList(const Row& row, KeyList& list) {
  list.keys.clear();
  list.scopes.clear();
  const std::optional<RowHead> head = ReadRowHead(row);
  if (!head) return false;

  BinaryReader reader;
  list.user = head->user;
  list.granted = head->granted;
  list.minute = {reader.Number<int32_t>(row.Bytes(kMinuteLimit)),
                 reader.Number<int32_t>(row.Bytes(kMinuteCount)),
                 reader.Time(row.Bytes(kMinuteEnds))};
  list.day = {reader.Number<int32_t>(row.Bytes(kDayLimit)),
              reader.Number<int32_t>(row.Bytes(kDayCount)), reader.Time(row.Bytes(kDayEnds))};
  list.now = reader.Time(row.Bytes(kNow));

  const Tiers tiers = ReadTiers(reader, row.Bytes(kTiers));
  std::string_view keys = row.Bytes(kKeys);
  const int32_t count = reader.Array(keys);
  for (int32_t i = 0; i < count && reader.good(); ++i) {
    ReadKey(reader, reader.Element(keys), tiers, list);
  }
  reader.End(keys);
  return reader.good();
}

void TrimKeyList(KeyList& list) {
  if (list.keys.size() > kMaxKeysKept) list = {};
}

}  // namespace keys
