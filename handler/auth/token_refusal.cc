#include "handler/auth/token_refusal.h"

#include <iterator>

namespace keys {
namespace {

struct RefusalRow {
  std::string_view name;
  RefusalKind kind = RefusalKind::kInvalid;
};

// In the order of TokenRefusal.
constexpr RefusalRow kRefusals[] = {
    {"no_cookie", RefusalKind::kMissing},
    {"cookie_chunks"},
    {"cookie_encoding"},
    {"cookie_session"},
    {"token_too_long", RefusalKind::kTooLarge},
    {"token_parts"},
    {"header_encoding"},
    {"header_json"},
    {"header_crit"},
    {"header_b64"},
    {"header_typ"},
    {"header_kid"},
    {"header_alg"},
    {"signature_encoding"},
    {"key_unknown"},
    {"key_algorithm"},
    {"signature"},
    {"claims_encoding"},
    {"claims_json"},
    {"claim_exp"},
    {"claim_nbf"},
    {"claim_iat"},
    {"claim_sub"},
    {"claim_aud"},
    {"claim_role"},
    {"claim_iss"},
    {"claim_client_id"},
    {"claim_session_id"},
    {"not_yet_valid"},
    {"expired", RefusalKind::kExpired},
};
static_assert(std::size(kRefusals) == kTokenRefusals);

}  // namespace

std::string_view Describe(TokenRefusal refusal) {
  return kRefusals[static_cast<size_t>(refusal)].name;
}

RefusalKind KindOf(TokenRefusal refusal) {
  return kRefusals[static_cast<size_t>(refusal)].kind;
}

}  // namespace keys
