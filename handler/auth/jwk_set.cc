#include "handler/auth/jwk_set.h"

#include <algorithm>
#include <array>
#include <utility>

#include "handler/base/base64url.h"
#include "handler/base/json_reader.h"

namespace keys {
namespace {

// What a key of ours is, and the algorithm that it is for.
struct SupportedKey {
  std::string_view kty, crv;
  Algorithm algorithm;
  std::array<std::string_view, 2> parameters;  // those that it has
};
constexpr SupportedKey kSupportedKeys[] = {
    {"oct", "", Algorithm::kHs256, {"k"}},
    {"EC", "P-256", Algorithm::kEs256, {"x", "y"}},
    {"RSA", "", Algorithm::kRs256, {"n", "e"}},
    {"OKP", "Ed25519", Algorithm::kEdDsa, {"x"}},
};

constexpr std::string_view kStringMembers[] = {"kty", "kid", "use", "alg", "crv",
                                               "x",   "y",   "n",   "e",   "k"};
constexpr std::string_view kPrivateMembers[] = {"d", "p", "q", "dp", "dq", "qi", "oth"};

std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 80;
  return "'" + std::string(text.substr(0, kShown)) + (text.size() > kShown ? "…'" : "'");
}

// One key of the set as it is written. Views point into the text.
struct Jwk {
  struct Member {
    std::string_view name;
    JsonType type;
    std::string_view text;
  };
  JsonType type;
  std::vector<Member> members;
  std::vector<Member> key_ops;
  bool ambiguous = false;  // two members of one name (RFC 7517 section 4)

  const Member* Find(std::string_view name) const {
    const auto found = std::find_if(members.begin(), members.end(),
                                    [&](const Member& member) { return member.name == name; });
    return found == members.end() ? nullptr : &*found;
  }
  std::optional<std::string_view> String(std::string_view name) const {
    const Member* const member = Find(name);
    if (member == nullptr || member->type != JsonType::kString) return std::nullopt;
    return member->text;
  }
};

// Collects the keys of a set.
class JwkReader : public JsonVisitor {
 public:
  bool Value(const JsonValue& value) override {
    switch (value.depth) {
      case 0:
        return value.type == JsonType::kObject;
      case 1:
        in_keys_ = value.name == "keys";
        if (in_keys_) has_keys = value.type == JsonType::kArray;
        return true;
      case 2:
        if (!in_keys_) return true;
        if (keys.size() == kMaxKeys) return false;
        keys.push_back({.type = value.type, .members = {}, .key_ops = {}});
        return true;
      case 3:
        if (in_keys_) AddMember(keys.back(), value);
        return true;
      case 4:
        if (in_keys_ && value.parent == "key_ops") {
          keys.back().key_ops.push_back({value.name, value.type, value.text});
        }
        return true;
      default:
        return true;
    }
  }

  bool has_keys = false;
  std::vector<Jwk> keys;

 private:
  static void AddMember(Jwk& jwk, const JsonValue& value) {
    if (jwk.Find(value.name) != nullptr) jwk.ambiguous = true;
    jwk.members.push_back({value.name, value.type, value.text});
  }

  bool in_keys_ = false;
};

const SupportedKey* FindSupported(std::string_view kty, std::optional<std::string_view> crv) {
  for (const SupportedKey& ours : kSupportedKeys) {
    if (kty == ours.kty && (ours.crv.empty() || crv == ours.crv)) return &ours;
  }
  return nullptr;
}

// A JWK's parameters, decoded; or what is wrong with one.
std::variant<std::vector<std::string>, std::string> DecodeParameters(
    const Jwk& jwk, const std::array<std::string_view, 2>& names) {
  std::vector<std::string> decoded;
  for (const std::string_view name : names) {
    if (name.empty()) continue;
    const auto text = jwk.String(name);
    if (!text) return std::string(name) + " is missing";
    auto bytes = DecodeBase64url(*text);
    if (!bytes) return std::string(name) + " is not strict base64url";
    decoded.push_back(std::move(*bytes));
  }
  return decoded;
}

// A key that verifies, and what tells whether another one is the same.
struct UsableKey {
  VerificationKey key;
  std::vector<std::string> parameters;

  bool IsSame(const UsableKey& other) const {
    return key.algorithm() == other.key.algorithm() && parameters == other.parameters;
  }
};
using Outcome = std::variant<UsableKey, std::string>;  // or why it is skipped

Outcome MakeKey(const SupportedKey& ours, const Jwk& jwk) {
  auto decoded = DecodeParameters(jwk, ours.parameters);
  if (auto* const reason = std::get_if<std::string>(&decoded)) return std::move(*reason);
  auto& of = std::get<std::vector<std::string>>(decoded);
  VerificationKey::Made made = [&] {
    switch (ours.algorithm) {
      case Algorithm::kHs256:
        return VerificationKey::Hs256(of[0]);
      case Algorithm::kEs256:
        return VerificationKey::Es256(of[0], of[1]);
      case Algorithm::kRs256:
        return VerificationKey::Rs256(of[0], of[1]);
      case Algorithm::kEdDsa:
        break;
    }
    return VerificationKey::EdDsa(of[0]);
  }();
  if (auto* const reason = std::get_if<std::string>(&made)) return std::move(*reason);
  return UsableKey{std::get<VerificationKey>(std::move(made)), std::move(of)};
}

// Why a key is not for verifying, by `use` and `key_ops`; nullopt when it is.
std::optional<std::string> JudgeUse(const Jwk& jwk) {
  if (const auto use = jwk.String("use"); use && *use != "sig") {
    return "use is " + Quoted(*use) + ", not 'sig'";
  }
  const Jwk::Member* const key_ops = jwk.Find("key_ops");
  if (key_ops == nullptr) return std::nullopt;
  const auto is_verify = [](const Jwk::Member& operation) {
    return operation.type == JsonType::kString && operation.text == "verify";
  };
  if (std::any_of(jwk.key_ops.begin(), jwk.key_ops.end(), is_verify)) return std::nullopt;
  return "key_ops lacks 'verify'";
}

// The table in the header.
Outcome JudgeKey(const Jwk& jwk) {
  if (jwk.type != JsonType::kObject) return "it is not an object";
  if (jwk.ambiguous) return "two members have one name";
  for (const std::string_view name : kStringMembers) {
    const Jwk::Member* const member = jwk.Find(name);
    if (member != nullptr && member->type != JsonType::kString) {
      return std::string(name) + " is not a string";
    }
  }
  const auto kty = jwk.String("kty"), crv = jwk.String("crv"), alg = jwk.String("alg");
  if (!kty) return "kty is missing";
  const SupportedKey* const ours = FindSupported(*kty, crv);
  if (ours == nullptr) {
    return "unsupported kty " + Quoted(*kty) + (crv ? ", crv " + Quoted(*crv) : "");
  }
  if (alg && ParseAlgorithm(*alg) != ours->algorithm) {
    return "unsupported alg " + Quoted(*alg) + " of kty " + Quoted(*kty);
  }
  for (const std::string_view name : kPrivateMembers) {
    if (ours->algorithm != Algorithm::kHs256 && jwk.Find(name) != nullptr) {
      return "it holds the private member " + std::string(name) + "; only public keys belong here";
    }
  }
  if (auto reason = JudgeUse(jwk)) return std::move(*reason);
  return MakeKey(*ours, jwk);
}

uint64_t NextGeneration() {
  static uint64_t last = 0;
  return ++last;
}

}  // namespace

class JwkSetLoader {
 public:
  void AddSet(std::string_view text) {
    if (text.size() > kMaxJwkSetLength) {
      return Problem("the JWK set has over " + std::to_string(kMaxJwkSetLength) + " bytes");
    }
    std::string buffer(text);
    JwkReader reader;
    if (!ReadJson(buffer.data(), buffer.size(), 1, reader)) {
      return Problem("the JWK set is not one JSON object with at most " + std::to_string(kMaxKeys) +
                     " keys");
    }
    if (!reader.has_keys) return Problem("the JWK set has no array 'keys'");
    for (size_t i = 0; i < reader.keys.size(); ++i) AddKey(reader.keys[i], i);
  }

  void AddSecret(std::string_view secret) {
    auto made = VerificationKey::Hs256(secret);
    if (auto* const reason = std::get_if<std::string>(&made)) {
      return Problem("legacy secret: " + *reason);
    }
    Entry entry{.name = "", .kid = {}, .usable = {std::get<VerificationKey>(std::move(made)), {}}};
    entry.usable.parameters.emplace_back(secret);
    std::erase_if(entries_, [&](const Entry& other) {
      return !other.kid && other.usable.IsSame(entry.usable);
    });
    entries_.insert(entries_.begin(), std::move(entry));
  }

  LoadedKeys Finish() {
    std::unique_ptr<JwkSet> set(new JwkSet);
    for (const bool with_kid : {false, true}) {
      for (Entry& entry : entries_) {
        if (entry.kid.has_value() != with_kid) continue;
        if (entry.ambiguous) {
          Skip(entry.name, "another key has the same kid");
        } else {
          set->keys_.push_back({std::move(entry.kid), std::move(entry.usable.key)});
        }
      }
    }
    if (loaded_.problems.empty() && set->keys_.empty()) {
      Problem("no key that verifies session tokens");
      loaded_.has_no_key = true;
    }
    if (loaded_.problems.empty()) loaded_.set = std::move(set);
    return std::move(loaded_);
  }

 private:
  struct Entry {
    std::string name;
    std::optional<std::string> kid;
    UsableKey usable;
    bool ambiguous = false;
  };

  void Problem(std::string sentence) { loaded_.problems.push_back(std::move(sentence)); }
  void Skip(const std::string& name, const std::string& reason) {
    loaded_.skipped.push_back(name + ": " + reason);
  }

  void AddKey(const Jwk& jwk, size_t position) {
    const auto kid = jwk.String("kid");
    std::string name = "key " + (kid ? Quoted(*kid) : std::to_string(position + 1));
    Outcome outcome = JudgeKey(jwk);
    if (const auto* const reason = std::get_if<std::string>(&outcome)) return Skip(name, *reason);

    Entry entry{
        .name = std::move(name), .kid = {}, .usable = std::get<UsableKey>(std::move(outcome))};
    if (kid) entry.kid = *kid;
    for (Entry& other : entries_) {
      if (other.kid != entry.kid) continue;
      if (other.usable.IsSame(entry.usable)) return;
      if (kid) other.ambiguous = entry.ambiguous = true;
    }
    entries_.push_back(std::move(entry));
  }

  std::vector<Entry> entries_;
  LoadedKeys loaded_;
};

JwkSet::JwkSet() : generation_(NextGeneration()) {}

LoadedKeys JwkSet::Load(std::optional<std::string_view> jwk_set,
                        std::optional<std::string_view> secret) {
  JwkSetLoader loader;
  if (jwk_set) loader.AddSet(*jwk_set);
  if (secret) loader.AddSecret(*secret);
  return loader.Finish();
}

std::variant<JwkSet::Candidates, TokenRefusal> JwkSet::Find(std::optional<std::string_view> kid,
                                                            std::string_view alg) const {
  const std::optional<Algorithm> algorithm = ParseAlgorithm(alg);
  if (!algorithm) return TokenRefusal::kAlgorithm;
  Candidates candidates;
  if (kid) {
    for (const NamedKey& named : keys_) {
      if (named.kid != *kid) continue;
      if (named.key.algorithm() != *algorithm) return TokenRefusal::kAlgorithmMismatch;
      candidates.Add(named.key);
      return candidates;
    }
  }
  for (const NamedKey& named : keys_) {
    if (named.key.algorithm() == *algorithm && !(kid && named.kid)) candidates.Add(named.key);
  }
  if (candidates.size() == 0) return TokenRefusal::kUnknownKey;
  return candidates;
}

}  // namespace keys
