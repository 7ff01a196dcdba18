// For --check: whether the database behind KEYS_DATABASE_URL is one that the service can serve
// from.
//
// Connects in the foreground, with a limit of time for each step. What is proven, in this order:
// the encoding gives every text as UTF-8; one connection is one backend (no transaction pooler is
// between: statements are prepared once and timeouts are set once); the statement runs for nobody,
// which takes every right that it needs for somebody; row security hides no table from it. Without
// the last, the statement would run and answer 401 to everybody, or an empty list.
#ifndef HANDLER_DATABASE_DATABASE_CHECK_H_
#define HANDLER_DATABASE_DATABASE_CHECK_H_

#include <string>

namespace keys {

// Throws std::runtime_error that says what is wrong, in one line, and where it helps what to do.
// `sql` is the statement of key_list.h.
void CheckDatabase(const std::string& url, const std::string& sql);

}  // namespace keys

#endif  // HANDLER_DATABASE_DATABASE_CHECK_H_
