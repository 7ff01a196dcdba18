#include "handler/sqlstate.h"

#include <algorithm>
#include <iterator>

namespace keys {
namespace {

constexpr Treatment kTreatments[] = {
    {"08", Remedy::kReconnect, DatabaseFault::kUnavailable},
    {"57P01", Remedy::kReconnect, DatabaseFault::kUnavailable},
    {"57P02", Remedy::kReconnect, DatabaseFault::kUnavailable},
    {"57P03", Remedy::kReconnect, DatabaseFault::kUnavailable},
    {"25006", Remedy::kReconnect, DatabaseFault::kUnavailable},  // it has become a standby
    {"26000", Remedy::kPrepareAgain, DatabaseFault::kUnavailable},
    {"0A000", Remedy::kPrepareAgain, DatabaseFault::kUnavailable},
    {"40001", Remedy::kAgain, DatabaseFault::kUnavailable},
    {"40P01", Remedy::kAgain, DatabaseFault::kUnavailable},
    {"53", Remedy::kNone, DatabaseFault::kUnavailable},
    {"55P03", Remedy::kApart, DatabaseFault::kUnavailable},
    {"57014", Remedy::kNone, DatabaseFault::kUnavailable},
    {"", Remedy::kApart, DatabaseFault::kInternal},
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

const Treatment& TreatmentOf(std::string_view sqlstate) {
  static constexpr Treatment kConnectionGone = {"", Remedy::kReconnect,
                                                DatabaseFault::kUnavailable};
  if (sqlstate.empty()) return kConnectionGone;
  return *std::find_if(std::begin(kTreatments), std::end(kTreatments),
                       [&](const Treatment& row) { return sqlstate.starts_with(row.sqlstate); });
}

}  // namespace keys
