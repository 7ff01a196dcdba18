// Finds the tokens that a request's cookies may hold its session in, in the two forms in which
// Supabase's clients keep it:
//
//   sb-access-token=<token>
//   sb-<ref>-auth-token=<session>       (@supabase/ssr), which may be cut into chunks:
//     sb-<ref>-auth-token.0=…; sb-<ref>-auth-token.1=…
//
// <session> is a JSON object with `access_token`, written either as `base64-` and base64url, or
// (cookieEncoding: "raw") as it is. It is read as @supabase/ssr reads it: each cookie's value
// percent-decoded, as it is where that fails; the whole cookie unless it is absent or empty; else
// the chunks up to the first that is absent or empty, even if more follow; spare bits and white
// space in the base64url are ignored; of two members `access_token` the last. Two things that it
// tolerates are refused: base64 padding, and text that is not JSON (RFC 8259: invalid UTF-8).
//
// A browser may send one name twice, from two domains or paths, and a stale cookie of an older
// library beside a live one. So there are candidates, in this order, and the first that is a valid
// session token counts:
//
//   1, 2  the first and the second sb-access-token
//   3     the first whole cookie
//   4     the chunks, the first of each number
//   5     the second whole cookie
//   6     the chunks, the second of each number
//   7     the chunks, the second of each number or the only one
//
// An empty whole cookie counts as absent, so @supabase/ssr's own choice is 3, or else 4.
#ifndef HANDLER_AUTH_SESSION_COOKIE_H_
#define HANDLER_AUTH_SESSION_COOKIE_H_

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "handler/auth/token_refusal.h"

namespace keys {

// Chunks are up to 3,180 bytes long; these are more than fit into a FastCGI record.
inline constexpr size_t kMaxCookieChunks = 32;
inline constexpr size_t kMaxSessionCookieLength = 64 * 1024;
// How many candidates of a request may cost a signature check.
inline constexpr size_t kMaxCandidates = 4;

struct SessionCookieNames {
  std::string token = "sb-access-token";
  std::string supabase;  // sb-<ref>-auth-token; empty: this form is not understood
};

// A token, or why the cookie holds none.
using SessionCandidate = std::variant<std::string_view, TokenRefusal>;

// Walks the candidates of one header. The header and the scratch memory are the caller's, who keeps
// the latter from request to request; a token is valid until the next call.
class SessionCandidates {
 public:
  SessionCandidates(std::string_view header, const SessionCookieNames& names, std::string& scratch);

  // nullopt at the end: at once where the header holds no candidate.
  std::optional<SessionCandidate> Next();

 private:
  // The first two values of one name.
  using Twice = std::array<std::optional<std::string_view>, 2>;
  enum class Occurrence { kFirst, kSecond, kSecondOrOnly };

  void Collect(std::string_view header, const SessionCookieNames& names);
  std::optional<SessionCandidate> Read(int step);
  std::optional<SessionCandidate> ReadWhole(size_t occurrence);
  std::optional<SessionCandidate> ReadChunks(Occurrence occurrence);
  SessionCandidate ReadSession();

  std::string& scratch_;
  Twice token_;
  Twice whole_;
  std::array<Twice, kMaxCookieChunks> chunks_;
  std::array<bool, 2> has_chunks_{};  // any of that occurrence that is not empty
  int step_ = 0;
  size_t tokens_ = 0;
};

}  // namespace keys

#endif  // HANDLER_AUTH_SESSION_COOKIE_H_
