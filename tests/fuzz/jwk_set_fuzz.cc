// A JWK set's text: either a set or at least one problem, and no key that Find would not hand out.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "handler/auth/jwk_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const keys::LoadedKeys loaded = keys::JwkSet::Load(text, std::nullopt);
  if ((loaded.set != nullptr) != loaded.problems.empty()) std::abort();
  if (!loaded.set) return 0;

  size_t found = 0;
  for (const auto alg : {"HS256", "ES256", "RS256", "EdDSA"}) {
    const auto key = loaded.set->Find(std::nullopt, alg);
    if (const auto* const refusal = std::get_if<keys::TokenRefusal>(&key)) {
      found += *refusal == keys::TokenRefusal::kAmbiguousKey ? 2 : 0;
      continue;
    }
    ++found;
    if (std::get<const keys::VerificationKey*>(key)->Verify("input", text)) std::abort();
  }
  if (found > loaded.set->size() || (found == 0) != (loaded.set->size() == 0)) std::abort();
  return 0;
}
