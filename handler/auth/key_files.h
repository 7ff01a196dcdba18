// The keys in use, from the files that an operator or tools/refresh-jwks replaces under us.
//
// Both files make one set: a change of either reads both, and a good new set replaces the old one
// as a whole. A broken one, or one without a key that verifies, is logged once, and the old one
// stays until the next change. A key that cannot be used is skipped and logged; the others count.
//
//   KEYS_JWKS_FILE         a JWK set as Supabase publishes it, up to 64 KiB
//   KEYS_JWT_SECRET_FILE   the secret as raw text, 32 to 4096 bytes; one newline at its end is not
//                          part of it
//
// Files are best replaced by rename(2); one that was read half-written is read again at its next
// change. Log events: keys_loaded, keys_broken, key_skipped.
#ifndef HANDLER_AUTH_KEY_FILES_H_
#define HANDLER_AUTH_KEY_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "handler/auth/jwk_set.h"

namespace keys {

// An empty path: not configured. At least one is.
struct KeyFilePaths {
  std::string jwk_set;
  std::string secret;
};

class KeyFiles {
 public:
  explicit KeyFiles(KeyFilePaths paths);

  // The first load. Returns every problem and, when no key is left, the keys that were skipped.
  // Call keys() only when there is no problem.
  std::vector<std::string> Load();

  enum class Change { kNone, kReplaced, kBroken };
  // Looks for a change with a stat of each file, and loads it. Call it about once per second. After
  // kReplaced, references into the former set are dead.
  Change Poll();

  // The set in use.
  const JwkSet& keys() const { return *set_; }

  // Unix time in seconds at which the file of the JWK set in use was last written, or touched by
  // tools/refresh-jwks because the issuer still has the same; 0 without such a file.
  int64_t confirmed_at() const { return confirmed_at_; }

 private:
  // What tells one version of a file from the next, without reading it.
  struct Stamp {
    bool exists = false;
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = 0;
    int64_t modified_ns = 0;
    int64_t changed_ns = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  static Stamp StampOf(const std::string& path);
  LoadedKeys Read(size_t& contents);
  void Use(LoadedKeys loaded, size_t contents);

  KeyFilePaths paths_;
  Stamp jwk_set_stamp_;
  Stamp secret_stamp_;
  std::unique_ptr<const JwkSet> set_;
  size_t contents_ = 0;  // a hash of what both files had when set_ was made
  int64_t confirmed_at_ = 0;
};

// Reads one JWK set file with the same bounds and rules and says what is wrong with it: for
// `--check-keys FILE`, by which tools/refresh-jwks validates.
LoadedKeys LoadJwkSetFile(const std::string& path);

}  // namespace keys

#endif  // HANDLER_AUTH_KEY_FILES_H_
