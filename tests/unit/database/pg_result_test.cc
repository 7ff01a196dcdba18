#include "handler/database/pg_result.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

TEST_CASE("a message becomes one line") {
  CHECK(OneLine(nullptr).empty());
  CHECK(OneLine("") == "");
  CHECK(OneLine("one\n") == "one");
  CHECK(OneLine("one\n\ttwo\n\n") == "one \ttwo");
  CHECK(OneLine("FATAL:  28P01: no\nLOCATION:  auth_failed, auth.c:330\n") == "FATAL:  28P01: no");
}

TEST_CASE("the SQLSTATE of a failed attempt is found in libpq's words") {
  const struct {
    const char* message;
    const char* sqlstate;
  } rows[] = {
      {"connection to server at \"127.0.0.1\", port 5432 failed: FATAL:  28P01: password "
       "authentication "
       "failed for user \"x\" LOCATION:  auth_failed, auth.c:331",
       "28P01"},
      {"connection failed: FATAL:  53300: sorry, too many clients already", "53300"},
      {"connection failed: Connection refused", ""},
      {"connection failed: FATAL:  sorry, in plain words", ""},
      {"at host:  failed: FATAL:  57P03: the database system is starting up", "57P03"},
      {"FATAL:  57P", ""},
      {"", ""},
  };
  for (const auto& row : rows) {
    CAPTURE(row.message);
    CHECK(SqlStateIn(row.message) == row.sqlstate);
  }
}

}  // namespace
}  // namespace keys
