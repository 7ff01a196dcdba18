// The claims of a Supabase session for tests: a good set, in which each test spoils what it names.
#ifndef TESTS_UNIT_AUTH_SESSION_CLAIMS_H_
#define TESTS_UNIT_AUTH_SESSION_CLAIMS_H_

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "handler/auth/jwt.h"

namespace keys::test {

inline constexpr std::string_view kUser = "00000001-0000-4000-8000-000000000001";
inline constexpr std::string_view kSession = "5e550001-0000-4000-8000-000000000001";
inline constexpr int64_t kNow = 1'800'000'000;

inline UnixTime At(double seconds) {
  return UnixTime(UnixTime::duration(seconds));
}

// Members of a JSON object in their order: names, and values as they are written.
class JsonObject {
 public:
  JsonObject(std::initializer_list<std::pair<std::string, std::string>> members)
      : members_(members) {}

  JsonObject& Set(const std::string& name, const std::string& json) {
    for (auto& member : members_) {
      if (member.first == name) {
        member.second = json;
        return *this;
      }
    }
    return Add(name, json);
  }
  // Also when it is there already.
  JsonObject& Add(const std::string& name, const std::string& json) {
    members_.emplace_back(name, json);
    return *this;
  }
  JsonObject& Remove(const std::string& name) {
    std::erase_if(members_, [&](const auto& member) { return member.first == name; });
    return *this;
  }
  std::string Text() const {
    std::string text = "{";
    for (const auto& [name, json] : members_) {
      if (text.size() > 1) text += ',';
      text += "\"" + name + "\":" + json;
    }
    return text + "}";
  }

 private:
  std::vector<std::pair<std::string, std::string>> members_;
};

inline std::string Quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

// In the order and with the members of Supabase's own tokens.
inline JsonObject GoodClaims() {
  return {{"iss", Quoted("https://ref.supabase.co/auth/v1")},
          {"sub", Quoted(kUser)},
          {"aud", Quoted("authenticated")},
          {"exp", std::to_string(kNow + 3600)},
          {"iat", std::to_string(kNow)},
          {"email", Quoted("user@example.com")},
          {"phone", Quoted("")},
          {"app_metadata", R"({"provider":"email","providers":["email"]})"},
          {"user_metadata", R"({"email":"user@example.com","email_verified":true,"sub":"x"})"},
          {"role", Quoted("authenticated")},
          {"aal", Quoted("aal1")},
          {"amr", R"([{"method":"password","timestamp":1800000000}])"},
          {"session_id", Quoted(kSession)},
          {"is_anonymous", "false"}};
}

// The verdict in one word: "ok", or the refusal's name.
inline std::string Describe(const Verdict& verdict) {
  const auto* const refusal = std::get_if<TokenRefusal>(&verdict);
  return refusal == nullptr ? "ok" : std::string(Describe(*refusal));
}

}  // namespace keys::test

#endif  // TESTS_UNIT_AUTH_SESSION_CLAIMS_H_
