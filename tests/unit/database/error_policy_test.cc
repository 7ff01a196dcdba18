#include "handler/database/error_policy.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

TEST_CASE("the table of sqlstate.h, row by row") {
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
      {"57014", Action::kFail, kUnavailable},      {"57P04", Action::kSplitBatch, kInternal},
      {"42501", Action::kSplitBatch, kInternal},   {"42P01", Action::kSplitBatch, kInternal},
      {"XX000", Action::kSplitBatch, kInternal},
  };
  for (const Row& row : rows) {
    CAPTURE(row.sqlstate);
    CHECK(PolicyFor(row.sqlstate).action == row.action);
    CHECK(PolicyFor(row.sqlstate).fault == row.fault);
  }
}

}  // namespace
}  // namespace keys
