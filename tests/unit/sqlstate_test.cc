#include "handler/sqlstate.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

TEST_CASE("the table of sqlstate.h, row by row") {
  struct Row {
    const char* sqlstate;
    Remedy remedy;
    DatabaseFault fault;
  };
  using enum DatabaseFault;
  const Row rows[] = {
      {"", Remedy::kReconnect, kUnavailable},
      {"08006", Remedy::kReconnect, kUnavailable},
      {"08P01", Remedy::kReconnect, kUnavailable},
      {"57P01", Remedy::kReconnect, kUnavailable},
      {"57P02", Remedy::kReconnect, kUnavailable},
      {"57P03", Remedy::kReconnect, kUnavailable},
      {"25006", Remedy::kReconnect, kUnavailable},
      {"26000", Remedy::kPrepareAgain, kUnavailable},
      {"0A000", Remedy::kPrepareAgain, kUnavailable},
      {"40001", Remedy::kAgain, kUnavailable},
      {"40P01", Remedy::kAgain, kUnavailable},
      {"53100", Remedy::kNone, kUnavailable},
      {"53300", Remedy::kNone, kUnavailable},
      {"55P03", Remedy::kApart, kUnavailable},
      {"57014", Remedy::kNone, kUnavailable},
      {"57P04", Remedy::kApart, kInternal},
      {"42501", Remedy::kApart, kInternal},
      {"42P01", Remedy::kApart, kInternal},
      {"XX000", Remedy::kApart, kInternal},
  };
  for (const Row& row : rows) {
    CAPTURE(row.sqlstate);
    CHECK(TreatmentOf(row.sqlstate).remedy == row.remedy);
    CHECK(TreatmentOf(row.sqlstate).fault == row.fault);
  }
}

}  // namespace
}  // namespace keys
