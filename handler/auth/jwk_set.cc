#include "handler/auth/jwk_set.h"

#include <algorithm>
#include <array>
#include <utility>

#include "handler/base/base64url.h"
#include "handler/base/json_reader.h"

namespace keys {
namespace {

// The signature algorithms of RFC 7518 section 3.1, RFC 8037, RFC 8812 and RFC 9864, and the keys
// that they go with. Encryption algorithms are not here: their keys are just not ours.
struct AlgorithmRow {
  std::string_view alg, kty, crv;
};
constexpr AlgorithmRow kAlgorithms[] = {
    {"HS256", "oct", ""},          {"HS384", "oct", ""},        {"HS512", "oct", ""},
    {"RS256", "RSA", ""},          {"RS384", "RSA", ""},        {"RS512", "RSA", ""},
    {"PS256", "RSA", ""},          {"PS384", "RSA", ""},        {"PS512", "RSA", ""},
    {"ES256", "EC", "P-256"},      {"ES384", "EC", "P-384"},    {"ES512", "EC", "P-521"},
    {"ES256K", "EC", "secp256k1"}, {"EdDSA", "OKP", "Ed25519"}, {"EdDSA", "OKP", "Ed448"},
    {"Ed25519", "OKP", "Ed25519"}, {"Ed448", "OKP", "Ed448"},
};

struct CurveRow {
  std::string_view crv, kty;
};
constexpr CurveRow kCurves[] = {
    {"P-256", "EC"},    {"P-384", "EC"},  {"P-521", "EC"},   {"secp256k1", "EC"},
    {"Ed25519", "OKP"}, {"Ed448", "OKP"}, {"X25519", "OKP"}, {"X448", "OKP"},
};

// What a key of ours is, and the algorithm that it is for.
struct SupportedKey {
  std::string_view kty, crv;
  Algorithm algorithm;
};
constexpr SupportedKey kSupportedKeys[] = {
    {"oct", "", Algorithm::kHs256},
    {"EC", "P-256", Algorithm::kEs256},
    {"RSA", "", Algorithm::kRs256},
    {"OKP", "Ed25519", Algorithm::kEdDsa},
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
  std::vector<Member> members;
  std::vector<Member> key_ops;

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
        if (value.type != JsonType::kObject || keys.size() == kMaxKeys) return false;
        keys.emplace_back();
        return true;
      case 3:
        if (in_keys_) keys.back().members.push_back({value.name, value.type, value.text});
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
  bool in_keys_ = false;
};

// A key is made, skipped for a reason, or wrong.
struct Skipped {
  std::string reason;
};
struct Invalid {
  std::string reason;
};
using Outcome = std::variant<VerificationKey, Skipped, Invalid>;

// Whether kty, crv and alg, where given, can be said of one key.
bool IsConsistent(std::string_view kty, std::optional<std::string_view> crv,
                  std::optional<std::string_view> alg) {
  for (const CurveRow& row : kCurves) {
    if (crv == row.crv && kty != row.kty && (kty == "EC" || kty == "OKP")) return false;
  }
  bool known = false;
  for (const AlgorithmRow& row : kAlgorithms) {
    if (alg != row.alg) continue;
    known = true;
    if (kty == row.kty && (row.crv.empty() || crv == row.crv)) return true;
  }
  return !known;
}

const SupportedKey* FindSupported(std::string_view kty, std::optional<std::string_view> crv) {
  for (const SupportedKey& ours : kSupportedKeys) {
    if (kty == ours.kty && (ours.crv.empty() || crv == ours.crv)) return &ours;
  }
  return nullptr;
}

Outcome MakeKey(Algorithm algorithm, const Jwk& jwk) {
  std::string missing;
  const auto parameter = [&](std::string_view name) {
    const auto text = jwk.String(name);
    auto bytes = text ? DecodeBase64url(*text) : std::nullopt;
    if (!bytes && missing.empty()) {
      missing = std::string(name) + (text ? " is not strict base64url" : " is missing");
    }
    return std::move(bytes).value_or(std::string());
  };
  const auto make = [&]() -> VerificationKey::Made {
    switch (algorithm) {
      case Algorithm::kHs256: {
        const std::string k = parameter("k");
        return missing.empty() ? VerificationKey::Hs256(k) : missing;
      }
      case Algorithm::kEs256: {
        const std::string x = parameter("x"), y = parameter("y");
        return missing.empty() ? VerificationKey::Es256(x, y) : missing;
      }
      case Algorithm::kRs256: {
        const std::string n = parameter("n"), e = parameter("e");
        return missing.empty() ? VerificationKey::Rs256(n, e) : missing;
      }
      case Algorithm::kEdDsa: {
        const std::string x = parameter("x");
        return missing.empty() ? VerificationKey::EdDsa(x) : missing;
      }
    }
    return "no algorithm";
  };
  VerificationKey::Made made = make();
  if (auto* const reason = std::get_if<std::string>(&made)) return Invalid{std::move(*reason)};
  return std::get<VerificationKey>(std::move(made));
}

// The table in the header, from top to bottom.
Outcome JudgeKey(const Jwk& jwk) {
  for (const std::string_view name : kStringMembers) {
    const Jwk::Member* const member = jwk.Find(name);
    if (member != nullptr && member->type != JsonType::kString) {
      return Invalid{std::string(name) + " is not a string"};
    }
  }
  const auto kty = jwk.String("kty"), crv = jwk.String("crv"), alg = jwk.String("alg");
  if (!kty) return Invalid{"kty is missing"};
  if (*kty != "oct" && *kty != "EC" && *kty != "RSA" && *kty != "OKP") {
    return Skipped{"kty " + Quoted(*kty) + " is none of ours"};
  }
  if (*kty != "oct") {
    for (const std::string_view name : kPrivateMembers) {
      if (jwk.Find(name) != nullptr) {
        return Invalid{"it holds the private member " + std::string(name) +
                       "; only public keys belong here"};
      }
    }
  }
  if ((*kty == "EC" || *kty == "OKP") && !crv) return Invalid{"crv is missing"};
  if (!IsConsistent(*kty, crv, alg)) {
    return Invalid{"kty " + Quoted(*kty) + (crv ? ", crv " + Quoted(*crv) : "") +
                   (alg ? ", alg " + Quoted(*alg) : "") + " disagree"};
  }
  if (const auto use = jwk.String("use"); use && *use != "sig") {
    return Skipped{"use is " + Quoted(*use) + ", not 'sig'"};
  }
  if (const Jwk::Member* const key_ops = jwk.Find("key_ops")) {
    if (key_ops->type != JsonType::kArray) return Invalid{"key_ops is not an array of strings"};
    bool verifies = false;
    for (const Jwk::Member& operation : jwk.key_ops) {
      if (operation.type != JsonType::kString) return Invalid{"key_ops is not an array of strings"};
      verifies = verifies || operation.text == "verify";
    }
    if (!verifies) return Skipped{"key_ops lacks 'verify'"};
  }
  const SupportedKey* const ours = FindSupported(*kty, crv);
  if (ours == nullptr) return Skipped{"crv " + Quoted(*crv) + " is none of ours"};
  if (alg && *alg != NameOf(ours->algorithm)) {
    return Skipped{"alg " + Quoted(*alg) + " is none of ours"};
  }
  return MakeKey(ours->algorithm, jwk);
}

uint64_t NextGeneration() {
  static uint64_t last = 0;
  return ++last;
}

}  // namespace

class JwkSetLoader {
 public:
  JwkSetLoader() : set_(new JwkSet) {}

  void AddSet(std::string_view text) {
    if (text.size() > kMaxJwkSetLength) {
      return Problem("the JWK set has over " + std::to_string(kMaxJwkSetLength) + " bytes");
    }
    std::string buffer(text);
    JwkReader reader;
    if (!ReadJson(buffer.data(), buffer.size(), 3, reader)) {
      return Problem(
          "the JWK set is not a JSON object within bounds: strict JSON, no two members of one "
          "name, keys that are objects, at most " +
          std::to_string(kMaxKeys) + " of them");
    }
    if (!reader.has_keys) return Problem("the JWK set has no array 'keys'");
    for (size_t i = 0; i < reader.keys.size(); ++i) AddKey(reader.keys[i], i);
  }

  void AddSecret(std::string_view secret) {
    auto made = VerificationKey::Hs256(secret);
    if (auto* const reason = std::get_if<std::string>(&made)) {
      return Problem("legacy secret: " + *reason);
    }
    set_->keys_.push_back({std::nullopt, std::get<VerificationKey>(std::move(made))});
    set_->has_secret_ = true;
  }

  LoadedKeys Finish() {
    if (loaded_.problems.empty()) loaded_.set = std::move(set_);
    return std::move(loaded_);
  }

 private:
  void Problem(std::string sentence) { loaded_.problems.push_back(std::move(sentence)); }

  void AddKey(const Jwk& jwk, size_t place) {
    const auto kid = jwk.String("kid");
    const std::string name = kid ? "key " + Quoted(*kid) : "key " + std::to_string(place + 1);
    if (kid) {
      if (std::find(kids_.begin(), kids_.end(), *kid) != kids_.end()) {
        Problem(name + ": another key has the same kid");
      }
      kids_.emplace_back(*kid);
    }
    Outcome outcome = JudgeKey(jwk);
    if (const auto* const wrong = std::get_if<Invalid>(&outcome)) {
      Problem(name + ": " + wrong->reason);
    } else if (const auto* const skipped = std::get_if<Skipped>(&outcome)) {
      loaded_.skipped.push_back(name + ": " + skipped->reason);
    } else {
      set_->keys_.push_back({kid ? std::optional<std::string>(*kid) : std::nullopt,
                             std::get<VerificationKey>(std::move(outcome))});
    }
  }

  std::unique_ptr<JwkSet> set_;
  LoadedKeys loaded_;
  std::vector<std::string> kids_;
};

JwkSet::JwkSet() : generation_(NextGeneration()) {}

LoadedKeys JwkSet::Load(std::optional<std::string_view> jwk_set,
                        std::optional<std::string_view> secret) {
  JwkSetLoader loader;
  if (jwk_set) loader.AddSet(*jwk_set);
  if (secret) loader.AddSecret(*secret);
  return loader.Finish();
}

std::variant<const VerificationKey*, TokenRefusal> JwkSet::Find(std::optional<std::string_view> kid,
                                                                std::string_view alg) const {
  const std::optional<Algorithm> algorithm = ParseAlgorithm(alg);
  if (!algorithm) return TokenRefusal::kAlgorithm;
  if (kid) {
    for (const NamedKey& named : keys_) {
      if (named.kid != *kid) continue;
      if (named.key.algorithm() != *algorithm) return TokenRefusal::kAlgorithmMismatch;
      return &named.key;
    }
    if (*algorithm == Algorithm::kHs256 && has_secret_) return &keys_.back().key;
    return TokenRefusal::kUnknownKey;
  }
  const VerificationKey* only = nullptr;
  for (const NamedKey& named : keys_) {
    if (named.key.algorithm() != *algorithm) continue;
    if (only != nullptr) return TokenRefusal::kAmbiguousKey;
    only = &named.key;
  }
  if (only == nullptr) return TokenRefusal::kUnknownKey;
  return only;
}

}  // namespace keys
