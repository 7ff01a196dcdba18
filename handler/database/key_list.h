// The one statement (sql/list_keys.sql, embedded at build time) and its result as plain data. Keys
// are decoded one by one, so that a long list is in memory only once.
//
// Errors: none are thrown. Thread rule: one thread.
#ifndef HANDLER_DATABASE_KEY_LIST_H_
#define HANDLER_DATABASE_KEY_LIST_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
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
  std::vector<std::string_view> scopes;
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

// A user's result, without the keys themselves.
struct KeyList {
  Uuid user;
  int32_t granted = 0;  // of the waiting requests; 0: over the limit, and no keys were read
  WindowCount minute;
  WindowCount day;
  DatabaseTime now;   // the database's time when the transaction began
  int first_row = 0;  // of its keys
  size_t keys = 0;    // how many
};

// The statement's text; without the session check for KEYS_CHECK_SESSION=off.
std::string ListKeysStatement(bool check_session);

// A key of a list, by its position; valid until the next call. Null: see KeyLists::Key.
using KeyAt = std::function<const ApiKey*(size_t position)>;

// The lists in a result. The memory is reused for the next result.
class KeyLists {
 public:
  // Finds each user's list. False when a row does not have the statement's form: a bug, or another
  // service's database. `result` must outlive the use of what the functions below return.
  bool Read(const Result& result);

  // One per user whose session is live, in any order.
  const std::vector<KeyList>& lists() const { return lists_; }

  // A key of a list, by its position. Valid until the next call; its texts point into the result.
  // Null when the row does not have the statement's form, or names an unknown tier.
  const ApiKey* Key(const KeyList& list, size_t position);

 private:
  struct Tier {
    std::string_view name;
    int32_t requests_per_minute = 0;
    int32_t requests_per_day = 0;
  };
  static constexpr size_t kMaxTiers = 8;  // the schema has two

  const Result* result_ = nullptr;
  std::array<Tier, kMaxTiers> tiers_;
  size_t tier_count_ = 0;
  std::vector<KeyList> lists_;
  ApiKey key_;
};

}  // namespace keys

#endif  // HANDLER_DATABASE_KEY_LIST_H_
