#include "handler/base/shared_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>

namespace keys {
namespace {

// What the signal handler repairs.
struct Guarded {
  char* memory = nullptr;
  size_t size = 0;
  int file = -1;
  volatile sig_atomic_t extended = 0;
  volatile sig_atomic_t lost = 0;
};
Guarded guarded;

bool MapPrivate(void* where, size_t size) {
  return mmap(where, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
              0) != MAP_FAILED;
}

// Makes the access that failed succeed when it is repeated after the return. Any other bus error
// ends the process then, as it would have.
void OnBusError(int, siginfo_t* info, void*) {
  const int error = errno;
  const auto* const address = static_cast<const char*>(info->si_addr);
  struct stat status = {};
  if (address < guarded.memory || address >= guarded.memory + guarded.size) {
    std::signal(SIGBUS, SIG_DFL);
  } else if (fstat(guarded.file, &status) == 0 &&
             status.st_size < static_cast<off_t>(guarded.size) &&
             ftruncate(guarded.file, static_cast<off_t>(guarded.size)) == 0) {
    guarded.extended = 1;
  } else if (MapPrivate(guarded.memory, guarded.size)) {
    guarded.lost = 1;
  } else {
    std::signal(SIGBUS, SIG_DFL);
  }
  errno = error;
}

// The file, of at least `size` bytes that are there to be written; -1 and errno.
int Open(const std::string& path, size_t size) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
  const auto length = static_cast<off_t>(size);
  if (file < 0 || fallocate(file, 0, 0, length) == 0) return file;
  // A file system that cannot reserve: a full disk is found when it is written.
  if (errno == EOPNOTSUPP && ftruncate(file, length) == 0) return file;
  const int error = errno;
  close(file);
  errno = error;
  return -1;
}

}  // namespace

SharedFile::SharedFile(const std::string& path, size_t size) : path_(path), size_(size) {
  if (!path.empty()) file_ = Open(path, size);
  memory_ = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                 file_ < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file_, 0);
  if (!path.empty() && (file_ < 0 || memory_ == MAP_FAILED)) problem_ = std::strerror(errno);
  if (memory_ == MAP_FAILED && file_ >= 0) {
    close(file_);
    file_ = -1;
    memory_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  if (file_ < 0) return;
  guarded.memory = static_cast<char*>(memory_);
  guarded.size = size_;
  guarded.file = file_;
  guarded.extended = 0;
  guarded.lost = 0;
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

SharedFile::~SharedFile() {
  if (guarded.memory == memory_) guarded = Guarded{};
  munmap(memory_, size_);
  if (file_ >= 0) close(file_);
}

std::string SharedFile::TakeProblem() {
  if (guarded.memory == memory_ && guarded.extended != 0) {
    problem_ = "truncated by somebody and extended again";
    guarded.extended = 0;
  }
  if (guarded.memory == memory_ && guarded.lost != 0) {
    problem_ = "cannot be written any more; this process is alone";
    guarded.lost = 0;
  }
  std::string problem;
  problem.swap(problem_);
  return problem.empty() ? problem : path_ + ": " + problem;
}

}  // namespace keys
