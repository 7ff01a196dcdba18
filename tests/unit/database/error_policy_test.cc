#include "handler/database/error_policy.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

TEST_CASE("the table of error_policy.h, row by row") {
  struct Row {
    const char* sqlstate;
    Action action;
    DatabaseFault fault;
  };
  using enum DatabaseFault;
  const Row rows[] = {
      {"", Action::kReconnect, kUnavailable},      {"08006", Action::kReconnect, kUnavailable},
      {"08P01", Action::kReconnect, kUnavailable}, {"57P01", Action::kReconnect, kUnavailable},
      {"57P02", Action::kReconnect, kUnavailable}, {"57P03", Action::kReconnect, kUnavailable},
      {"25006", Action::kReconnect, kUnavailable}, {"26000", Action::kReprepare, kUnavailable},
      {"0A000", Action::kReprepare, kUnavailable}, {"40001", Action::kRetry, kUnavailable},
      {"40P01", Action::kRetry, kUnavailable},     {"53100", Action::kFail, kUnavailable},
      {"53300", Action::kFail, kUnavailable},      {"55P03", Action::kSplitBatch, kUnavailable},
      {"57014", Action::kRetry, kUnavailable},     {"57P04", Action::kReconnect, kUnavailable},
      {"42501", Action::kSplitBatch, kInternal},   {"42P01", Action::kSplitBatch, kInternal},
      {"XX000", Action::kSplitBatch, kInternal},
  };
  for (const Row& row : rows) {
    CAPTURE(row.sqlstate);
    CHECK(PolicyFor(row.sqlstate).action == row.action);
    CHECK(PolicyFor(row.sqlstate).fault == row.fault);
  }
}

TEST_CASE("what the server announces is no lookup's fault, what breaks without a word may be") {
  for (const char* const sqlstate : {"57P01", "57P02", "57P03", "25006", "08006", "57014"}) {
    CAPTURE(sqlstate);
    CHECK(!PolicyFor(sqlstate).may_be_lookup);
  }
  for (const char* const sqlstate : {"", "26000", "40001", "55P03", "XX000"}) {
    CAPTURE(sqlstate);
    CHECK(PolicyFor(sqlstate).may_be_lookup);
  }
}

}  // namespace
}  // namespace keys
