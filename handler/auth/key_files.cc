#include "handler/auth/key_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <utility>
#include <variant>

#include "handler/base/log.h"
#include "handler/base/unique_fd.h"

namespace keys {
namespace {

constexpr size_t kMaxSecretLength = 4096 + 2;  // and a line end

struct Unreadable {
  std::string problem;
};

std::variant<std::string, Unreadable> ReadFile(const std::string& path, size_t max_size) {
  const auto failed = [&](const std::string& reason) { return Unreadable{path + ": " + reason}; };
  // O_NONBLOCK: opening a FIFO by mistake must not wait for its writer.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status;
  if (file.get() < 0 || fstat(file.get(), &status) != 0) return failed(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return failed("not a regular file");

  // One byte more than allowed tells a file that is too large, also one that grows meanwhile.
  std::string bytes(max_size + 1, '\0');
  size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = read(file.get(), bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > max_size) return failed("over " + std::to_string(max_size) + " bytes");
  bytes.resize(size);
  return bytes;
}

std::string_view WithoutNewline(std::string_view text) {
  if (!text.ends_with('\n')) return text;
  text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

// Makes one set of both files, those that are configured. `contents` becomes a hash of both.
LoadedKeys LoadFiles(const KeyFilePaths& paths, size_t& contents) {
  std::vector<std::string> unreadable;
  const auto read = [&](const std::string& path, size_t max_size) -> std::optional<std::string> {
    if (path.empty()) return std::nullopt;
    auto text = ReadFile(path, max_size);
    if (auto* const failed = std::get_if<Unreadable>(&text)) {
      unreadable.push_back(std::move(failed->problem));
      return std::nullopt;
    }
    return std::get<std::string>(std::move(text));
  };
  const std::optional<std::string> jwk_set = read(paths.jwk_set, kMaxJwkSetLength);
  std::optional<std::string_view> secret;
  const std::optional<std::string> secret_text = read(paths.secret, kMaxSecretLength);
  if (secret_text) secret = WithoutNewline(*secret_text);
  contents = std::hash<std::string>{}(jwk_set.value_or("") + '\0' + secret_text.value_or(""));

  LoadedKeys loaded;
  try {
    if (jwk_set || secret) loaded = JwkSet::Load(jwk_set, secret);
  } catch (const std::runtime_error& fault) {  // OpenSSL's; the keys in use can stay
    loaded.problems.emplace_back(fault.what());
  }
  if (!unreadable.empty()) {
    loaded.set.reset();
    loaded.problems.insert(loaded.problems.begin(), std::move_iterator(unreadable.begin()),
                           std::move_iterator(unreadable.end()));
  }
  return loaded;
}

std::string Joined(const std::vector<std::string>& sentences) {
  std::string all;
  for (const std::string& sentence : sentences) {
    if (!all.empty()) all += "; ";
    all += sentence;
  }
  return all;
}

void LogSkipped(const std::vector<std::string>& skipped) {
  for (const std::string& reason : skipped) Log(Level::kInfo, "key_skipped", {{"reason", reason}});
}

}  // namespace

KeyFiles::KeyFiles(KeyFilePaths paths) : paths_(std::move(paths)) {}

KeyFiles::Stamp KeyFiles::StampOf(const std::string& path) {
  struct stat status;
  if (path.empty() || stat(path.c_str(), &status) != 0) return {};
  const auto nanoseconds = [](const timespec& time) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  return {true,
          status.st_dev,
          status.st_ino,
          status.st_size,
          nanoseconds(status.st_mtim),
          nanoseconds(status.st_ctim)};
}

LoadedKeys KeyFiles::Read(size_t& contents) {
  // Stamped before they are read: what changes meanwhile is read again at the next poll.
  jwk_set_stamp_ = StampOf(paths_.jwk_set);
  secret_stamp_ = StampOf(paths_.secret);
  return LoadFiles(paths_, contents);
}

void KeyFiles::Use(LoadedKeys loaded, size_t contents) {
  LogSkipped(loaded.skipped);
  set_ = std::move(loaded.set);
  contents_ = contents;
  confirmed_at_ = jwk_set_stamp_.modified_ns / 1'000'000'000;
}

std::vector<std::string> KeyFiles::Load() {
  size_t contents = 0;
  LoadedKeys loaded = Read(contents);
  if (!loaded.set) {
    loaded.problems.insert(loaded.problems.end(), std::move_iterator(loaded.skipped.begin()),
                           std::move_iterator(loaded.skipped.end()));
    return std::move(loaded.problems);
  }
  Use(std::move(loaded), contents);
  return {};
}

KeyFiles::Change KeyFiles::Poll() {
  if (StampOf(paths_.jwk_set) == jwk_set_stamp_ && StampOf(paths_.secret) == secret_stamp_) {
    return Change::kNone;
  }
  size_t contents = 0;
  LoadedKeys loaded = Read(contents);
  if (!loaded.set) {
    LogSkipped(loaded.skipped);
    Log(Level::kWarning, "keys_broken",
        {{"reason", Joined(loaded.problems)}, {"kept", static_cast<int64_t>(set_->size())}});
    contents_ = 0;  // what mends it is a change, also when it is what was there before
    return Change::kBroken;
  }
  if (contents == contents_) {  // touched
    confirmed_at_ = jwk_set_stamp_.modified_ns / 1'000'000'000;
    return Change::kNone;
  }
  Use(std::move(loaded), contents);
  Log(Level::kInfo, "keys_loaded", {{"keys", static_cast<int64_t>(set_->size())}});
  return Change::kReplaced;
}

LoadedKeys LoadJwkSetFile(const std::string& path) {
  size_t contents = 0;
  return LoadFiles({path, ""}, contents);
}

}  // namespace keys
