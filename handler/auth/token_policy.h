// What a genuine token must say to be a session here: immutable, from the configuration.
//
//   claim        accepted
//   exp          required; now < exp + leeway
//   nbf          absent, or nbf - leeway <= now
//   iat          absent, or a NumericDate; its value decides nothing
//   sub          a UUID: the project's anon and service_role keys have none
//   role         "authenticated"
//   aud          the audience, or an array of strings that contains it
//   iss          the issuer, where one is configured; anything otherwise
//   session_id   a UUID; anything where no session is required
#ifndef HANDLER_AUTH_TOKEN_POLICY_H_
#define HANDLER_AUTH_TOKEN_POLICY_H_

#include <chrono>
#include <string>

namespace keys {

// A moment as a token states it (NumericDate, RFC 7519 section 2): Unix seconds, with a fraction.
// std::chrono::system_clock::now() converts to it by itself.
using UnixTime = std::chrono::sys_time<std::chrono::duration<double>>;

struct TokenPolicy {
  std::string issuer;  // empty: any
  std::string audience = "authenticated";
  std::chrono::seconds leeway{0};
  bool require_session = true;  // KEYS_CHECK_SESSION
};

}  // namespace keys

#endif  // HANDLER_AUTH_TOKEN_POLICY_H_
