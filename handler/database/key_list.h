// The one statement (sql/list_keys.sql, embedded at build) and a row of its answer as plain data.
#ifndef HANDLER_DATABASE_KEY_LIST_H_
#define HANDLER_DATABASE_KEY_LIST_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "handler/base/uuid.h"
#include "handler/database/pg_result.h"

namespace keys {

// PostgreSQL's clock, to the microsecond.
using DatabaseTime = std::chrono::sys_time<std::chrono::microseconds>;

struct ApiKey {
  Uuid id;
  std::string_view key_prefix;
  std::string_view name;
  std::string_view tier;
  size_t first_scope = 0;  // its scopes: KeyList::scopes from here on,
  size_t scopes = 0;       // this many
  int32_t requests_per_minute = 0;
  int32_t requests_per_day = 0;
  int64_t total_requests = 0;
  std::optional<DatabaseTime> last_used_at;
  DatabaseTime created_at;
  std::optional<DatabaseTime> expires_at;
  std::optional<DatabaseTime> revoked_at;
};

// One window of the rate limit as the statement left it.
struct WindowCount {
  int32_t limit = 0;
  int32_t count = 0;  // requests granted in the window, those of this statement included
  DatabaseTime ends;
};

struct KeyList {
  Uuid user;
  int32_t granted = 0;  // of the requests that waited; 0: over a window, and no keys were read
  WindowCount minute;
  WindowCount day;
  DatabaseTime now;  // the database's, at the statement's transaction
  std::vector<ApiKey> keys;
  std::vector<std::string_view> scopes;
};

// The statement's text; without the session check for KEYS_CHECK_SESSION=off.
std::string ListKeysStatement(bool check_session);

// What tells whose row it is and whether more waited than were granted, without reading the keys.
// nullopt as below.
struct RowHead {
  Uuid user;
  int32_t granted = 0;
};
std::optional<RowHead> ReadRowHead(const Row& row);

// Reads a row into `list`, whose memory is used again. The views point into the row. False when the
// row is not the statement's: a fault of ours, or a database that is not ours.
bool ReadKeyList(const Row& row, KeyList& list);

// Gives back the memory of a long list.
void TrimKeyList(KeyList& list);

}  // namespace keys

#endif  // HANDLER_DATABASE_KEY_LIST_H_
