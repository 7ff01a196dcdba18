#include "handler/auth/session_cookie.h"

#include "handler/auth/cookie.h"
#include "handler/base/json_reader.h"
#include "handler/base/text.h"

namespace keys {
namespace {

constexpr std::string_view kBase64Prefix = "base64-";
constexpr int kSteps = 7;

// The number in `<supabase>.<number>`, written without leading zeros; nullopt for any other name
// and for a number that no session needs.
std::optional<size_t> ChunkNumber(std::string_view name, std::string_view supabase) {
  if (!name.starts_with(supabase)) return std::nullopt;
  name.remove_prefix(supabase.size());
  if (name.size() < 2 || name.size() > 3 || name[0] != '.') return std::nullopt;
  name.remove_prefix(1);
  if (name.size() > 1 && name[0] == '0') return std::nullopt;
  size_t number = 0;
  for (const char c : name) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<size_t>(c - '0');
  }
  return number < kMaxCookieChunks ? std::optional(number) : std::nullopt;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Appends `value` percent-decoded; as it is where an escape is malformed or does not make UTF-8
// (ECMA-262 section 19.2.6.1, decodeURIComponent).
void AppendDecoded(std::string_view value, std::string& out) {
  const size_t start = out.size();
  for (size_t at = 0; at < value.size(); ++at) {
    if (value[at] != '%') {
      out += value[at];
      continue;
    }
    const int high = at + 2 < value.size() ? HexDigit(value[at + 1]) : -1;
    const int low = high >= 0 ? HexDigit(value[at + 2]) : -1;
    if (low < 0) {
      out.replace(start, std::string::npos, value);
      return;
    }
    out += static_cast<char>(high * 16 + low);
    at += 2;
  }
  if (!IsUtf8(std::string_view(out).substr(start))) out.replace(start, std::string::npos, value);
}

int Base64urlDigit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '-' ? 62 : c == '_' ? 63 : -1;
}

// Decodes base64url in place from `start` on to the beginning, as @supabase/ssr does: white space
// is passed over, bits that belong to no byte are dropped. False at any other character.
bool DecodeLenient(std::string& text, size_t start) {
  unsigned bits = 0;
  int held = 0;
  size_t size = 0;
  for (size_t at = start; at < text.size(); ++at) {
    const char c = text[at];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    const int digit = Base64urlDigit(c);
    if (digit < 0) return false;
    bits = (bits << 6 | static_cast<unsigned>(digit)) & 0xFFFF;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    text[size++] = static_cast<char>(bits >> held & 0xFF);
  }
  text.resize(size);
  return true;
}

class AccessToken : public JsonVisitor {
 public:
  bool Value(const JsonValue& value) override {
    if (value.depth == 0) return value.type == JsonType::kObject;
    if (value.depth == 1 && value.name == "access_token") {
      token.reset();
      if (value.type == JsonType::kString) token = value.text;
    }
    return true;
  }

  std::optional<std::string_view> token;
};

}  // namespace

SessionCandidates::SessionCandidates(std::string_view header, const SessionCookieNames& names,
                                     std::string& scratch)
    : scratch_(scratch) {
  Collect(header, names);
}

void SessionCandidates::Collect(std::string_view header, const SessionCookieNames& names) {
  const auto add = [](Twice& values, std::string_view value) -> size_t {
    const size_t occurrence = values[0] ? 1 : 0;
    if (!values[occurrence]) values[occurrence] = value;
    return occurrence;
  };
  CookieReader reader(header);
  while (const std::optional<Cookie> cookie = reader.Next()) {
    if (cookie->name == names.token) add(token_, cookie->value);
    if (names.supabase.empty()) continue;
    if (cookie->name == names.supabase) {
      add(whole_, cookie->value);
    } else if (const auto number = ChunkNumber(cookie->name, names.supabase)) {
      const size_t occurrence = add(chunks_[*number], cookie->value);
      if (!cookie->value.empty()) has_chunks_[occurrence] = true;
    }
  }
}

std::optional<SessionCandidate> SessionCandidates::Next() {
  while (step_ < kSteps && tokens_ < kMaxCandidates) {
    const std::optional<SessionCandidate> candidate = Read(step_++);
    if (!candidate) continue;
    if (std::holds_alternative<std::string_view>(*candidate)) ++tokens_;
    return candidate;
  }
  return std::nullopt;
}

// The list in the header.
std::optional<SessionCandidate> SessionCandidates::Read(int step) {
  switch (step) {
    case 0:
    case 1: {
      const auto& token = token_[static_cast<size_t>(step)];
      return token ? std::optional<SessionCandidate>(*token) : std::nullopt;
    }
    case 2:
      return ReadWhole(0);
    case 3:
      return ReadChunks(Occurrence::kFirst);
    case 4:
      return ReadWhole(1);
    case 5:
      return ReadChunks(Occurrence::kSecond);
    default:
      return ReadChunks(Occurrence::kSecondOrOnly);
  }
}

std::optional<SessionCandidate> SessionCandidates::ReadWhole(size_t occurrence) {
  const std::optional<std::string_view>& value = whole_[occurrence];
  if (!value || value->empty()) return std::nullopt;
  scratch_.clear();
  AppendDecoded(*value, scratch_);
  return ReadSession();
}

std::optional<SessionCandidate> SessionCandidates::ReadChunks(Occurrence occurrence) {
  if (!has_chunks_[occurrence == Occurrence::kFirst ? 0 : 1]) return std::nullopt;
  scratch_.clear();
  for (const Twice& chunk : chunks_) {
    const bool first =
        occurrence == Occurrence::kFirst || (occurrence == Occurrence::kSecondOrOnly && !chunk[1]);
    const std::optional<std::string_view>& value = chunk[first ? 0 : 1];
    if (!value || value->empty()) break;
    AppendDecoded(*value, scratch_);
  }
  if (scratch_.empty()) return TokenRefusal::kCookieChunks;
  return ReadSession();
}

// Reads the session in scratch_.
SessionCandidate SessionCandidates::ReadSession() {
  if (scratch_.size() > kMaxSessionCookieLength) return TokenRefusal::kTooLong;
  if (scratch_.starts_with(kBase64Prefix) && !DecodeLenient(scratch_, kBase64Prefix.size())) {
    return TokenRefusal::kCookieEncoding;
  }
  AccessToken session;
  if (!ReadJson(scratch_.data(), scratch_.size(), 0, session) || !session.token) {
    return TokenRefusal::kCookieSession;
  }
  return *session.token;
}

}  // namespace keys
