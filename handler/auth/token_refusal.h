// Why a request has no session: each rule that can refuse a cookie or a token, by name.
//
// A refusal is a value, not a fault. Its rule name is stable and goes to the log; the client learns
// the kind only.
#ifndef HANDLER_AUTH_TOKEN_REFUSAL_H_
#define HANDLER_AUTH_TOKEN_REFUSAL_H_

#include <string_view>

namespace keys {

enum class TokenRefusal {
  // The cookie.
  kNoCookie,        // neither cookie is there
  kCookieChunks,    // a chunk of the Supabase cookie is missing, or there are too many
  kCookieEncoding,  // the Supabase cookie is not `base64-` and strict base64url
  kCookieSession,   // the Supabase cookie is not a JSON object with one string `access_token`
  // The token's form and header.
  kTooLong,            // over kMaxTokenLength
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
  kUnknownKey,         // no key for that `kid`, or, without `kid`, none of that algorithm
  kAmbiguousKey,       // no `kid`, and several keys of that algorithm
  kAlgorithmMismatch,  // the key that `kid` names is for another algorithm
  kSignature,          // the signature is wrong
  // The claims; only a genuine token gets here.
  kClaimsEncoding,
  kClaimsJson,   // as kHeaderJson
  kExpiry,       // `exp` missing or not a NumericDate
  kNotBefore,    // `nbf` there and not a NumericDate
  kIssuedAt,     // `iat` there and not a NumericDate
  kSubject,      // `sub` is not a UUID
  kAudience,     // `aud` does not contain ours
  kRole,         // `role` is not `authenticated`
  kIssuer,       // `iss` is not the configured one
  kSession,      // `session_id` is not a UUID, and one is required
  kNotYetValid,  // before `nbf`
  kExpired,      // on or after `exp`, everything else being right
};

// The stable snake_case name for the log, such as "signature".
std::string_view Describe(TokenRefusal refusal);

// What the client is told: 401 missing_api_key, 401 invalid_session or 401 expired_session.
enum class RefusalKind { kMissing, kInvalid, kExpired };
RefusalKind KindOf(TokenRefusal refusal);

}  // namespace keys

#endif  // HANDLER_AUTH_TOKEN_REFUSAL_H_
