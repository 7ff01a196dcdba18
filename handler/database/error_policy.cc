#include "handler/database/error_policy.h"

#include <algorithm>
#include <iterator>

namespace keys {
namespace {

constexpr ErrorPolicy kPolicies[] = {
    {"08", Action::kReconnect, DatabaseFault::kUnavailable, false},
    {"57P", Action::kReconnect, DatabaseFault::kUnavailable, false},
    {"25006", Action::kReconnect, DatabaseFault::kUnavailable, false},  // has become a standby
    {"26000", Action::kReprepare, DatabaseFault::kUnavailable},
    {"0A000", Action::kReprepare, DatabaseFault::kUnavailable},
    {"40001", Action::kRetry, DatabaseFault::kUnavailable},
    {"40P01", Action::kRetry, DatabaseFault::kUnavailable},
    {"53", Action::kFail, DatabaseFault::kUnavailable},
    {"55P03", Action::kSplitBatch, DatabaseFault::kUnavailable},
    {"57014", Action::kRetry, DatabaseFault::kUnavailable, false},
    {"", Action::kSplitBatch, DatabaseFault::kInternal},
};

}  // namespace

std::string_view Describe(DatabaseFault fault) {
  switch (fault) {
    case DatabaseFault::kNone:
      return "none";
    case DatabaseFault::kUnavailable:
      return "unavailable";
    case DatabaseFault::kTimeout:
      return "timeout";
    case DatabaseFault::kInternal:
      return "internal";
  }
  return "none";
}

const ErrorPolicy& PolicyFor(std::string_view sqlstate) {
  static constexpr ErrorPolicy kConnectionGone = {"", Action::kReconnect,
                                                  DatabaseFault::kUnavailable};
  if (sqlstate.empty()) return kConnectionGone;
  return *std::find_if(std::begin(kPolicies), std::end(kPolicies),
                       [&](const ErrorPolicy& row) { return sqlstate.starts_with(row.sqlstate); });
}

}  // namespace keys
