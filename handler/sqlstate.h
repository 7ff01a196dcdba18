// What is done about an error of PostgreSQL, by its SQLSTATE (PostgreSQL, appendix A).
//
//   SQLSTATE                        remedy                         otherwise the answer
//   none, 08*, 57P01-57P03, 25006   reconnect, ask again once      kUnavailable
//   26000, 0A000                    prepare again, ask again once  kUnavailable
//   40001, 40P01                    ask again once, each by itself kUnavailable
//   55P03                           ask each by itself             kUnavailable
//   53*, 57014                                                     kUnavailable
//   any other                       ask each by itself             kInternal
//
// "Ask each by itself" is for questions that were asked together, of which one may be the culprit;
// it is no remedy for one that was alone.
#ifndef HANDLER_SQLSTATE_H_
#define HANDLER_SQLSTATE_H_

#include <string_view>

namespace keys {

// Why there are no rows. kTimeout: nothing came before the deadline.
enum class DatabaseFault { kNone, kUnavailable, kTimeout, kInternal };
std::string_view Describe(DatabaseFault fault);

enum class Remedy { kNone, kApart, kAgain, kPrepareAgain, kReconnect };

struct Treatment {
  std::string_view sqlstate;  // or the beginning of it
  Remedy remedy;
  DatabaseFault fault;  // when the remedy does not help
};

// Of an error; an empty SQLSTATE is one that libpq made up because the connection is gone.
const Treatment& TreatmentOf(std::string_view sqlstate);

}  // namespace keys

#endif  // HANDLER_SQLSTATE_H_
