// For --check: whether the database behind KEYS_DATABASE_URL is one that the service can serve
// from.
//
// Connects in the foreground, with a timeout per step, and proves in this order:
//   1. the encoding gives every text as UTF-8;
//   2. one connection is one backend, so there is no transaction pooler in between: statements are
//      prepared once and timeouts are set once;
//   3. the statement runs for no user, which takes all the rights that it needs for any user;
//   4. row security hides no table. Otherwise the statement would run, and every user would get 401
//      or an empty list.
#ifndef HANDLER_DATABASE_DATABASE_CHECK_H_
#define HANDLER_DATABASE_DATABASE_CHECK_H_

#include <string>

namespace keys {

// Throws std::runtime_error that says in one line what is wrong and, where possible, what to do.
// `sql` is the statement of key_list.h.
void CheckDatabase(const std::string& url, const std::string& sql);

}  // namespace keys

#endif  // HANDLER_DATABASE_DATABASE_CHECK_H_
