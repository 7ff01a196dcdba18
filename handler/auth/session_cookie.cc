#include "handler/auth/session_cookie.h"

#include <array>
#include <optional>

#include "handler/auth/cookie.h"
#include "handler/base/base64url.h"
#include "handler/base/json_reader.h"

namespace keys {
namespace {

constexpr std::string_view kPrefix = "base64-";

// The number in `<supabase>.<number>`, written without leading zeros; nullopt for any other name.
// A number over the bound comes back as the bound.
std::optional<size_t> ChunkNumber(std::string_view name, std::string_view supabase) {
  if (!name.starts_with(supabase)) return std::nullopt;
  name.remove_prefix(supabase.size());
  if (name.size() < 2 || name[0] != '.') return std::nullopt;
  name.remove_prefix(1);
  if (name.size() > 1 && name[0] == '0') return std::nullopt;
  size_t number = 0;
  for (const char c : name) {
    if (c < '0' || c > '9') return std::nullopt;
    if (number < kMaxCookieChunks) number = number * 10 + static_cast<size_t>(c - '0');
  }
  return number < kMaxCookieChunks ? number : kMaxCookieChunks;
}

// Joins the chunks 0 to n in `joined`; a refusal when there are none or one is missing.
std::optional<TokenRefusal> JoinChunks(std::string_view header, std::string_view supabase,
                                       std::string& joined) {
  std::array<std::optional<std::string_view>, kMaxCookieChunks> chunks;
  size_t end = 0;
  CookieReader reader(header);
  while (const std::optional<Cookie> cookie = reader.Next()) {
    const std::optional<size_t> number = ChunkNumber(cookie->name, supabase);
    if (!number) continue;
    if (*number == kMaxCookieChunks) return TokenRefusal::kCookieChunks;
    if (!chunks[*number]) chunks[*number] = cookie->value;
    if (*number >= end) end = *number + 1;
  }
  if (end == 0) return TokenRefusal::kNoCookie;
  joined.clear();
  for (size_t i = 0; i < end; ++i) {
    if (!chunks[i]) return TokenRefusal::kCookieChunks;
    joined += *chunks[i];
  }
  return std::nullopt;
}

class AccessToken : public JsonVisitor {
 public:
  bool Value(const JsonValue& value) override {
    if (value.depth == 0) return value.type == JsonType::kObject;
    if (value.depth == 1 && value.name == "access_token") {
      if (value.type != JsonType::kString) return false;
      token = value.text;
    }
    return true;
  }

  std::optional<std::string_view> token;
};

}  // namespace

std::variant<std::string_view, TokenRefusal> FindSessionToken(std::string_view header,
                                                              const SessionCookieNames& names,
                                                              std::string& scratch) {
  if (const auto token = FindCookie(header, names.token)) return *token;
  if (names.supabase.empty()) return TokenRefusal::kNoCookie;

  if (const auto whole = FindCookie(header, names.supabase)) {
    scratch = *whole;
  } else if (const auto refusal = JoinChunks(header, names.supabase, scratch)) {
    return *refusal;
  }
  if (scratch.size() > kMaxSessionCookieLength || !scratch.starts_with(kPrefix)) {
    return TokenRefusal::kCookieEncoding;
  }
  const std::string_view encoded = std::string_view(scratch).substr(kPrefix.size());
  const std::optional<size_t> size = DecodeBase64url(encoded, scratch.data(), scratch.size());
  if (!size) return TokenRefusal::kCookieEncoding;
  scratch.resize(*size);

  AccessToken session;
  if (!ReadJson(scratch.data(), scratch.size(), 1, session) || !session.token) {
    return TokenRefusal::kCookieSession;
  }
  return *session.token;
}

}  // namespace keys
