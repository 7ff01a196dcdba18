#include "handler/auth/jwt.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <system_error>

#include "handler/base/base64url.h"
#include "handler/base/json_reader.h"

namespace keys {
namespace {

constexpr std::string_view kRole = "authenticated";
constexpr size_t kMaxSignatureLength = 1024;  // RSA of 8192 bits
constexpr size_t kMaxNumericDateLength = 64;
constexpr double kMaxNumericDate = 9007199254740992;  // 2^53: whole seconds are exact below

// Decoded JSON, and the byte more that ReadJson wants.
using JsonBuffer = std::array<char, kMaxTokenLength / 4 * 3 + 1>;

struct Parts {
  std::string_view header, claims, signature;
  std::string_view signed_input;  // header and claims, as they were signed
};

std::optional<Parts> Split(std::string_view token) {
  const size_t first = token.find('.');
  if (first == std::string_view::npos) return std::nullopt;
  const size_t second = token.find('.', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  if (token.find('.', second + 1) != std::string_view::npos) return std::nullopt;
  return Parts{token.substr(0, first), token.substr(first + 1, second - first - 1),
               token.substr(second + 1), token.substr(0, second)};
}

bool IsJwtInAnyCase(std::string_view typ) {
  return typ.size() == 3 && (typ[0] | 0x20) == 'j' && (typ[1] | 0x20) == 'w' &&
         (typ[2] | 0x20) == 't';
}

// Keeps the refusal that a visitor stopped the scan for.
class Reader : public JsonVisitor {
 public:
  std::optional<TokenRefusal> refusal;

 protected:
  bool Refuse(TokenRefusal because) {
    refusal = because;
    return false;
  }
};

class HeaderReader : public Reader {
 public:
  bool Value(const JsonValue& value) override {
    if (value.depth == 0) return value.type == JsonType::kObject;
    if (value.depth != 1) return true;
    const bool is_string = value.type == JsonType::kString;
    if (value.name == "alg") {
      if (!is_string) return Refuse(TokenRefusal::kAlgorithm);
      alg = value.text;
    } else if (value.name == "kid") {
      if (!is_string) return Refuse(TokenRefusal::kHeaderKid);
      kid = value.text;
    } else if (value.name == "typ") {
      if (!is_string || !IsJwtInAnyCase(value.text)) return Refuse(TokenRefusal::kHeaderType);
    } else if (value.name == "crit") {
      return Refuse(TokenRefusal::kHeaderCritical);
    } else if (value.name == "b64") {
      return Refuse(TokenRefusal::kHeaderUnencoded);
    }
    return true;
  }

  std::string_view alg;
  std::optional<std::string_view> kid;
};

// Takes each claim as it comes; Check() then judges what is missing.
class ClaimsReader : public Reader {
 public:
  explicit ClaimsReader(const TokenPolicy& policy) : policy_(policy) {}

  bool Value(const JsonValue& value) override {
    if (value.depth == 0) return value.type == JsonType::kObject;
    if (value.depth == 2 && value.parent == "aud") {
      if (value.type != JsonType::kString) return Refuse(TokenRefusal::kAudience);
      has_audience_ = has_audience_ || value.text == policy_.audience;
      return true;
    }
    if (value.depth != 1) return true;
    if (value.name == "exp") return Date(value, expires_at_, TokenRefusal::kExpiry);
    if (value.name == "nbf") return Date(value, not_before_, TokenRefusal::kNotBefore);
    if (value.name == "iat") return Date(value, issued_at_, TokenRefusal::kIssuedAt);

    const std::string_view text = value.type == JsonType::kString ? value.text : std::string_view();
    if (value.name == "sub") {
      user_ = ParseUuid(text);
    } else if (value.name == "session_id") {
      session_ = ParseUuid(text);
    } else if (value.name == "role") {
      has_role_ = text == kRole;
    } else if (value.name == "iss") {
      has_issuer_ =
          std::find(policy_.issuers.begin(), policy_.issuers.end(), text) != policy_.issuers.end();
    } else if (value.name == "client_id") {
      return Refuse(TokenRefusal::kClient);
    } else if (value.name == "aud") {
      if (value.type != JsonType::kString && value.type != JsonType::kArray) {
        return Refuse(TokenRefusal::kAudience);
      }
      has_audience_ = !text.empty() && text == policy_.audience;
    }
    return true;
  }

  Verdict Check() const {
    if (!expires_at_) return TokenRefusal::kExpiry;
    if (!user_) return TokenRefusal::kSubject;
    if (!has_audience_) return TokenRefusal::kAudience;
    if (!has_role_) return TokenRefusal::kRole;
    if (!policy_.issuers.empty() && !has_issuer_) return TokenRefusal::kIssuer;
    if (policy_.require_session && !session_) return TokenRefusal::kSession;
    return Claims{.user = *user_,
                  .session = session_.value_or(Uuid{}),
                  .expires_at = *expires_at_,
                  .not_before = not_before_.value_or(UnixTime{}),
                  .has_session = session_.has_value()};
  }

 private:
  bool Date(const JsonValue& value, std::optional<UnixTime>& date, TokenRefusal otherwise) {
    if (value.type == JsonType::kNumber) date = ParseNumericDate(value.text);
    return date ? true : Refuse(otherwise);
  }

  const TokenPolicy& policy_;
  std::optional<UnixTime> expires_at_, not_before_, issued_at_;
  std::optional<Uuid> user_, session_;
  bool has_audience_ = false, has_role_ = false, has_issuer_ = false;
};

// Decodes and scans one of the two JSON parts; a refusal or nullopt.
std::optional<TokenRefusal> ReadPart(std::string_view part, JsonBuffer& buffer, Reader& reader,
                                     TokenRefusal bad_encoding, TokenRefusal bad_json) {
  const auto size = DecodeBase64url(part, buffer.data(), buffer.size() - 1);
  if (!size) return bad_encoding;
  if (!ReadJson(buffer.data(), *size, 1, reader)) return reader.refusal.value_or(bad_json);
  return std::nullopt;
}

}  // namespace

Verdict VerifyToken(std::string_view token, const JwkSet& keys, const TokenPolicy& policy,
                    UnixTime now) {
  if (token.size() > kMaxTokenLength) return TokenRefusal::kTooLong;
  const std::optional<Parts> parts = Split(token);
  if (!parts) return TokenRefusal::kParts;

  JsonBuffer buffer;
  HeaderReader header;
  if (const auto refusal = ReadPart(parts->header, buffer, header, TokenRefusal::kHeaderEncoding,
                                    TokenRefusal::kHeaderJson)) {
    return *refusal;
  }
  const auto found = keys.Find(header.kid, header.alg);
  if (const auto* const refusal = std::get_if<TokenRefusal>(&found)) return *refusal;

  std::array<char, kMaxSignatureLength> signature;
  const auto size = DecodeBase64url(parts->signature, signature.data(), signature.size());
  if (!size) return TokenRefusal::kSignatureEncoding;
  const auto verifies = [&](const VerificationKey* key) {
    return key->Verify(parts->signed_input, {signature.data(), *size});
  };
  const auto& candidates = std::get<JwkSet::Candidates>(found);
  if (std::none_of(candidates.begin(), candidates.end(), verifies)) {
    return TokenRefusal::kSignature;
  }

  ClaimsReader reader(policy);
  if (const auto refusal = ReadPart(parts->claims, buffer, reader, TokenRefusal::kClaimsEncoding,
                                    TokenRefusal::kClaimsJson)) {
    return *refusal;
  }
  const Verdict verdict = reader.Check();
  if (const auto* const claims = std::get_if<Claims>(&verdict)) {
    if (const auto refusal = CheckTime(*claims, policy, now)) return *refusal;
  }
  return verdict;
}

std::optional<TokenRefusal> CheckTime(const Claims& claims, const TokenPolicy& policy,
                                      UnixTime now) {
  if (now < claims.not_before - policy.leeway) return TokenRefusal::kNotYetValid;
  if (now >= claims.expires_at + policy.leeway) return TokenRefusal::kExpired;
  return std::nullopt;
}

std::optional<UnixTime> ParseNumericDate(std::string_view number) {
  if (number.size() > kMaxNumericDateLength) return std::nullopt;
  double seconds = 0;
  const char* const begin = number.data();
  const char* const end = begin + number.size();
  const auto [stopped, error] = std::from_chars(begin, end, seconds);
  if (error != std::errc() || stopped != end || !(std::abs(seconds) < kMaxNumericDate)) {
    return std::nullopt;
  }
  return UnixTime(UnixTime::duration(seconds));
}

}  // namespace keys
