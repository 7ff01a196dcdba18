// What is done about an error of PostgreSQL, by its SQLSTATE (PostgreSQL, appendix A).
//
//   SQLSTATE                        action                         otherwise the answer
//   none, 08*, 57P01-57P03, 25006   reconnect, ask again once      kUnavailable
//   26000, 0A000                    prepare again, ask again once  kUnavailable
//   40001, 40P01                    ask again once, each by itself kUnavailable
//   55P03                           ask each by itself             kUnavailable
//   53*, 57014                                                     kUnavailable
//   any other                       ask each by itself             kInternal
//
// "Ask each by itself" is for lookups that were asked together, of which one may be the culprit;
// it is no action for one that was alone.
#ifndef HANDLER_DATABASE_ERROR_POLICY_H_
#define HANDLER_DATABASE_ERROR_POLICY_H_

#include <string_view>

namespace keys {

// Why there are no rows. kTimeout: nothing came before the deadline.
enum class DatabaseFault { kNone, kUnavailable, kTimeout, kInternal };
std::string_view Describe(DatabaseFault fault);

enum class Action { kFail, kSplitBatch, kRetry, kReprepare, kReconnect };

struct ErrorPolicy {
  std::string_view sqlstate;  // or the beginning of it
  Action action;
  DatabaseFault fault;  // when the action does not help
};

// Of an error; an empty SQLSTATE is one that libpq made up because the connection is gone.
const ErrorPolicy& PolicyFor(std::string_view sqlstate);

}  // namespace keys

#endif  // HANDLER_DATABASE_ERROR_POLICY_H_
