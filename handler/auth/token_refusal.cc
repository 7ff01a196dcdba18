#include "handler/auth/token_refusal.h"

namespace keys {

std::string_view Describe(TokenRefusal refusal) {
  switch (refusal) {
    case TokenRefusal::kNoCookie:
      return "no_cookie";
    case TokenRefusal::kCookieChunks:
      return "cookie_chunks";
    case TokenRefusal::kCookieEncoding:
      return "cookie_encoding";
    case TokenRefusal::kCookieSession:
      return "cookie_session";
    case TokenRefusal::kTooLong:
      return "token_too_long";
    case TokenRefusal::kParts:
      return "token_parts";
    case TokenRefusal::kHeaderEncoding:
      return "header_encoding";
    case TokenRefusal::kHeaderJson:
      return "header_json";
    case TokenRefusal::kHeaderCritical:
      return "header_crit";
    case TokenRefusal::kHeaderUnencoded:
      return "header_b64";
    case TokenRefusal::kHeaderType:
      return "header_typ";
    case TokenRefusal::kHeaderKid:
      return "header_kid";
    case TokenRefusal::kAlgorithm:
      return "header_alg";
    case TokenRefusal::kSignatureEncoding:
      return "signature_encoding";
    case TokenRefusal::kUnknownKey:
      return "key_unknown";
    case TokenRefusal::kAmbiguousKey:
      return "key_ambiguous";
    case TokenRefusal::kAlgorithmMismatch:
      return "key_algorithm";
    case TokenRefusal::kSignature:
      return "signature";
    case TokenRefusal::kClaimsEncoding:
      return "claims_encoding";
    case TokenRefusal::kClaimsJson:
      return "claims_json";
    case TokenRefusal::kExpiry:
      return "claim_exp";
    case TokenRefusal::kNotBefore:
      return "claim_nbf";
    case TokenRefusal::kIssuedAt:
      return "claim_iat";
    case TokenRefusal::kSubject:
      return "claim_sub";
    case TokenRefusal::kAudience:
      return "claim_aud";
    case TokenRefusal::kRole:
      return "claim_role";
    case TokenRefusal::kIssuer:
      return "claim_iss";
    case TokenRefusal::kSession:
      return "claim_session_id";
    case TokenRefusal::kNotYetValid:
      return "not_yet_valid";
    case TokenRefusal::kExpired:
      return "expired";
  }
  return "unknown";
}

RefusalKind KindOf(TokenRefusal refusal) {
  switch (refusal) {
    case TokenRefusal::kNoCookie:
      return RefusalKind::kMissing;
    case TokenRefusal::kExpired:
      return RefusalKind::kExpired;
    default:
      return RefusalKind::kInvalid;
  }
}

}  // namespace keys
