// Why a request has no session: each rule that can refuse a cookie or a token, by name.
//
// A refusal is a value, not a fault. Its rule name is stable and goes to the log; the client learns
// the kind only.
#ifndef HANDLER_AUTH_TOKEN_REFUSAL_H_
#define HANDLER_AUTH_TOKEN_REFUSAL_H_

#include <cstddef>
#include <string_view>

namespace keys {

enum class TokenRefusal {
  // The cookie.
  kNoCookie,        // neither cookie is there
  kCookieChunks,    // the Supabase cookie's first chunk is missing, while others are there
  kCookieEncoding,  // `base64-` is there, and what follows is not base64url
  kCookieSession,   // the Supabase cookie is not a JSON object with a string `access_token`
  // The token's form and header.
  kTooLong,            // over kMaxTokenLength, or the Supabase cookie over kMaxSessionCookieLength
  kParts,              // not three parts
  kHeaderEncoding,     // not strict base64url
  kHeaderJson,         // not one JSON object within bounds, or two members of one name
  kHeaderCritical,     // `crit` is there: an extension that we would have to understand
  kHeaderUnencoded,    // `b64` is there (RFC 7797)
  kHeaderType,         // `typ` is there and is not `JWT`
  kHeaderKid,          // `kid` is there and is not a string
  kAlgorithm,          // `alg` is missing or none of ours
  kSignatureEncoding,  // not strict base64url, or too long
  // The key.
  kUnknownKey,         // no key to try: the table in jwk_set.h
  kAlgorithmMismatch,  // the key that `kid` names is for another algorithm
  kSignature,          // no key that was tried verifies the signature
  // The claims; only a genuine token gets here.
  kClaimsEncoding,
  kClaimsJson,   // as kHeaderJson
  kExpiry,       // `exp` missing or not a NumericDate
  kNotBefore,    // `nbf` there and not a NumericDate
  kIssuedAt,     // `iat` there and not a NumericDate
  kSubject,      // `sub` is not a UUID
  kAudience,     // `aud` does not contain ours
  kRole,         // `role` is not `authenticated`
  kIssuer,       // `iss` is none of the configured ones
  kClient,       // `client_id` is there: a token of a third party's app
  kSession,      // `session_id` is not a UUID, and one is required
  kNotYetValid,  // before `nbf`
  kExpired,      // on or after `exp`, everything else being right
};
inline constexpr size_t kTokenRefusals = static_cast<size_t>(TokenRefusal::kExpired) + 1;

// The stable snake_case name for the log, such as "signature".
std::string_view Describe(TokenRefusal refusal);

// What the client is told: 401 missing_api_key, 401 invalid_session, 401 expired_session or
// 431 headers_too_large.
enum class RefusalKind { kMissing, kInvalid, kExpired, kTooLarge };
RefusalKind KindOf(TokenRefusal refusal);

}  // namespace keys

#endif  // HANDLER_AUTH_TOKEN_REFUSAL_H_
