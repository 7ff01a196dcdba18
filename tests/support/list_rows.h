// Rows of the result of sql/list_keys.sql, in PostgreSQL's binary format, for tests without a
// server.
#ifndef TESTS_SUPPORT_LIST_ROWS_H_
#define TESTS_SUPPORT_LIST_ROWS_H_

#include <libpq-fe.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "handler/base/uuid.h"
#include "handler/database/key_list.h"
#include "handler/database/pg_result.h"

namespace keys {

enum ListColumn : size_t {
  kUser,
  kGranted,
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
  kTotalRequests,
  kLastUsedAt,
  kCreatedAt,
  kExpiresAt,
  kRevokedAt,
  kColumns
};

using ListRow = std::vector<std::optional<std::string>>;  // nullopt is NULL

inline std::string BigEndian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> 8 * i & 0xFF);
  return text;
}

// integer
inline std::string Number(int32_t value) {
  return BigEndian(static_cast<uint32_t>(value), 4);
}

// timestamptz: microseconds since 2000-01-01.
inline std::string Time(DatabaseTime time) {
  const auto since = time - std::chrono::sys_days(std::chrono::January / 1 / 2000);
  return BigEndian(static_cast<uint64_t>(since.count()), 8);
}

// text[]
inline std::string Texts(const std::vector<std::string>& texts) {
  constexpr int32_t kTextType = 25;
  if (texts.empty()) return Number(0) + Number(0) + Number(kTextType);
  std::string array = Number(1) + Number(0) + Number(kTextType) +
                      Number(static_cast<int32_t>(texts.size())) + Number(1);
  for (const std::string& text : texts) array += Number(static_cast<int32_t>(text.size())) + text;
  return array;
}

inline ListRow TierRow(const std::string& name, int32_t minute, int32_t day, DatabaseTime now) {
  ListRow row(kColumns);
  row[kMinuteLimit] = Number(minute);
  row[kDayLimit] = Number(day);
  row[kNow] = Time(now);
  row[kTier] = name;
  return row;
}

inline ListRow UserRow(const Uuid& user, int32_t granted, const WindowCount& minute,
                       const WindowCount& day) {
  ListRow row(kColumns);
  row[kUser] = std::string(user.bytes.begin(), user.bytes.end());
  row[kGranted] = Number(granted);
  row[kMinuteLimit] = Number(minute.limit);
  row[kMinuteCount] = Number(minute.count);
  row[kMinuteEnds] = Time(minute.ends);
  row[kDayLimit] = Number(day.limit);
  row[kDayCount] = Number(day.count);
  row[kDayEnds] = Time(day.ends);
  return row;
}

// The columns of a key are left to fill in.
inline ListRow KeyRow(const Uuid& user) {
  ListRow row(kColumns);
  row[kUser] = std::string(user.bytes.begin(), user.bytes.end());
  return row;
}

// As libpq would have received them; with another number of `columns`, of another statement.
inline Result MakeResult(const std::vector<ListRow>& rows, size_t columns = kColumns) {
  PGresult* const result = PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK);
  char name[] = "column";
  PGresAttDesc attribute{};
  attribute.name = name;
  attribute.format = 1;
  std::vector<PGresAttDesc> attributes(columns, attribute);
  PQsetResultAttrs(result, static_cast<int>(columns), attributes.data());
  for (size_t number = 0; number < rows.size(); ++number) {
    for (size_t column = 0; column < std::min(columns, rows[number].size()); ++column) {
      std::optional<std::string> value = rows[number][column];
      PQsetvalue(result, static_cast<int>(number), static_cast<int>(column),
                 value ? value->data() : nullptr, value ? static_cast<int>(value->size()) : -1);
    }
  }
  return Result(result);
}

}  // namespace keys

#endif  // TESTS_SUPPORT_LIST_ROWS_H_
