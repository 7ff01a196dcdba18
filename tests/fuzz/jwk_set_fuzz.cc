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
    const auto candidates = loaded.set->Find(std::nullopt, alg);
    if (std::holds_alternative<keys::TokenRefusal>(candidates)) continue;
    for (const keys::VerificationKey* const key : std::get<keys::JwkSet::Candidates>(candidates)) {
      ++found;
      if (key->Verify("input", text)) std::abort();
    }
  }
  if (found == 0 || found > loaded.set->size()) std::abort();
  return 0;
}
