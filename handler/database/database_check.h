// For --check: whether the service can run on the database behind KEYS_DATABASE_URL.
//
// Connects in the foreground, with a timeout per step, and checks in this order:
//   1. the encoding can represent every text as UTF-8;
//   2. a connection keeps its backend, so no transaction pooler is in between: the service prepares
//      its statement and sets its timeouts once per connection;
//   3. the statement runs for an empty list of users, which needs the same privileges as any list;
//   4. row security hides no rows, and the tier 'free' is there. With hidden rows the statement
//      would run, and every user would get 401 or an empty list.
#ifndef HANDLER_DATABASE_DATABASE_CHECK_H_
#define HANDLER_DATABASE_DATABASE_CHECK_H_

#include <string>

namespace keys {

// Throws std::runtime_error, which says in one line what is wrong and, where possible, what to do.
// `sql` is the statement of key_list.h.
void CheckDatabase(const std::string& url, const std::string& sql);

}  // namespace keys

#endif  // HANDLER_DATABASE_DATABASE_CHECK_H_
