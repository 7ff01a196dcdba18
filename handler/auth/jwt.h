// Verifies a session token: a JWT (RFC 7519) in JWS compact form (RFC 7515), by the advice of
// RFC 8725.
//
// The order is part of the policy. No claim is read before the signature is verified. Time is
// checked last, so only a genuine token of ours is ever "expired".
//
//   1  length, three parts
//   2  header: strict base64url, strict JSON, no two members of one name; `crit` and `b64` refused;
//      `typ` absent or `JWT` in any case; `alg` one of ours. `jwk`, `jku`, `x5u`, `x5c` and
//      whatever else is there are never looked at.
//   3  kid x alg -> keys to try: the table in jwk_set.h
//   4  the signature
//   5  claims: the table of TokenPolicy
//   6  nbf, then exp, against `now`
//
// Allocates nothing and keeps nothing. No input throws.
#ifndef HANDLER_AUTH_JWT_H_
#define HANDLER_AUTH_JWT_H_

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "handler/auth/jwk_set.h"
#include "handler/auth/token_refusal.h"
#include "handler/base/uuid.h"

namespace keys {

inline constexpr size_t kMaxTokenLength = 16 * 1024;

// A moment as a token states it (NumericDate, RFC 7519 section 2): Unix seconds, with a fraction.
// std::chrono::system_clock::now() converts to it by itself.
using UnixTime = std::chrono::sys_time<std::chrono::duration<double>>;

// What a genuine token must say to be a session here: immutable, from the configuration.
//
//   claim        accepted
//   exp          required; now < exp + leeway
//   nbf          absent, or nbf - leeway <= now
//   iat          absent, or a NumericDate; its value decides nothing
//   sub          a UUID: the project's anon and service_role keys have none
//   role         "authenticated"
//   aud          the audience, or an array of strings that contains it
//   iss          one of the issuers, where any are configured; anything otherwise
//   client_id    absent: Supabase's OAuth server writes it into tokens for third parties' apps
//   session_id   a UUID; anything where no session is required
struct TokenPolicy {
  std::vector<std::string> issuers;  // empty: any
  std::string audience = "authenticated";
  std::chrono::seconds leeway{0};
  bool require_session = true;  // KEYS_CHECK_SESSION
};

// What a verified token says. Trivially copyable, so that token_cache can remember it.
struct Claims {
  Uuid user;
  Uuid session;  // when has_session
  UnixTime expires_at{};
  UnixTime not_before{};  // the epoch when the token has no `nbf`
  bool has_session = false;
};

using Verdict = std::variant<Claims, TokenRefusal>;

// All six steps.
Verdict VerifyToken(std::string_view token, const JwkSet& keys, const TokenPolicy& policy,
                    UnixTime now);

// Step 6 alone, for claims that passed the others: nullopt when they hold at `now`.
std::optional<TokenRefusal> CheckTime(const Claims& claims, const TokenPolicy& policy,
                                      UnixTime now);

// NumericDate: a JSON number as it is written, fraction and exponent included. nullopt when it is
// longer than 64 characters or does not lie within 2^53 seconds of the epoch.
std::optional<UnixTime> ParseNumericDate(std::string_view number);

}  // namespace keys

#endif  // HANDLER_AUTH_JWT_H_
