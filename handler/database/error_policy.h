// What is done about an error of PostgreSQL, by its SQLSTATE (PostgreSQL, appendix A).
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
// "Split the batch" is for lookups that were sent together, of which one may be the culprit; it
// does not help one that was alone. What the server itself announces (57P01 and its kin, 57014) is
// nobody's fault: such a lookup is retried as often as its deadline allows.
#ifndef HANDLER_DATABASE_ERROR_POLICY_H_
#define HANDLER_DATABASE_ERROR_POLICY_H_

#include <string_view>

namespace keys {

// Why there is no answer. kTimeout: nothing came before the deadline.
enum class DatabaseFault { kNone, kUnavailable, kTimeout, kInternal };
std::string_view Describe(DatabaseFault fault);

enum class Action { kFail, kSplitBatch, kRetry, kReprepare, kReconnect };

struct ErrorPolicy {
  std::string_view sqlstate;  // or the beginning of it
  Action action;
  DatabaseFault fault;        // when the action does not help
  bool may_be_lookup = true;  // whether a lookup may have caused it
};

// Of an error; an empty SQLSTATE is one that libpq made up because the connection is gone.
const ErrorPolicy& PolicyFor(std::string_view sqlstate);

}  // namespace keys

#endif  // HANDLER_DATABASE_ERROR_POLICY_H_
