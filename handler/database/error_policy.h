// What to do about an error of PostgreSQL, by its SQLSTATE (PostgreSQL, appendix A).
//
//   SQLSTATE                 action                             if it does not help
//   none                     reconnect, retry each alone        kUnavailable
//   08*, 57P01-57P05, 25006  reconnect, retry                   kUnavailable
//   26000, 0A000             prepare again, retry once          kUnavailable
//   40001, 40P01             retry each alone, once             kUnavailable
//   55P03                    split the batch: each alone        kUnavailable
//   57014                    retry each alone, unless the       kUnavailable
//                            statement had used up its time
//   53*                      fail                               kUnavailable
//   any other                split the batch: each alone        kInternal
//
// "Split the batch" sends each lookup of a batch alone, because one of them may have caused the
// error. A lookup that was not in a batch fails; only after 55P03 it is first sent once more, with
// the longer lock_timeout of a lookup sent alone. No lookup causes 08*, 57P*, 25006 and 57014, so
// after these a lookup is retried as often as its deadline allows.
#ifndef HANDLER_DATABASE_ERROR_POLICY_H_
#define HANDLER_DATABASE_ERROR_POLICY_H_

#include <string_view>

namespace keys {

// Why there is no answer. kTimeout: none arrived before the deadline.
enum class DatabaseFault { kNone, kUnavailable, kTimeout, kInternal };
std::string_view Describe(DatabaseFault fault);

enum class Action { kFail, kSplitBatch, kRetry, kReprepare, kReconnect };

struct ErrorPolicy {
  std::string_view sqlstate;  // or the beginning of it
  Action action;
  DatabaseFault fault;        // when the action does not help
  bool may_be_lookup = true;  // whether a lookup may have caused it
};

// The policy for an error. Without a SQLSTATE the error is libpq's own: the connection is gone.
const ErrorPolicy& PolicyFor(std::string_view sqlstate);

}  // namespace keys

#endif  // HANDLER_DATABASE_ERROR_POLICY_H_
