// Finds the session token of a request, in either of the two forms in which Supabase's clients keep
// it:
//
//   sb-access-token=<token>
//   sb-<ref>-auth-token=base64-<base64url of the session's JSON>      (@supabase/ssr)
//     the same cut into chunks: sb-<ref>-auth-token.0=base64-…; sb-<ref>-auth-token.1=…
//
//   sb-access-token   whole form   chunks            verdict
//   there             any          any               its value, even an empty one
//   absent            there        any               the `access_token` of its JSON, or a refusal
//   absent            absent       0 to n, no gap    the same of the chunks joined
//   absent            absent       a gap, no `.0`    kCookieChunks
//   absent            absent       absent            kNoCookie
#ifndef HANDLER_AUTH_SESSION_COOKIE_H_
#define HANDLER_AUTH_SESSION_COOKIE_H_

#include <string>
#include <string_view>
#include <variant>

#include "handler/auth/token_refusal.h"

namespace keys {

// Bounds of the @supabase/ssr form: what a browser could have sent through nginx's header buffers.
inline constexpr size_t kMaxCookieChunks = 16;
inline constexpr size_t kMaxSessionCookieLength = 32 * 1024;

struct SessionCookieNames {
  std::string token = "sb-access-token";
  std::string supabase;  // sb-<ref>-auth-token; empty: this form is not understood
};

// The token lies in `header` or in `scratch`, which the caller keeps from request to request so
// that its memory is used again, and is valid until either changes.
std::variant<std::string_view, TokenRefusal> FindSessionToken(std::string_view header,
                                                              const SessionCookieNames& names,
                                                              std::string& scratch);

}  // namespace keys

#endif  // HANDLER_AUTH_SESSION_COOKIE_H_
