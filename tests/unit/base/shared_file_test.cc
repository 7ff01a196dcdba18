#include "handler/base/shared_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>

namespace keys {
namespace {

constexpr size_t kSize = 3 * 4096;

// The path of a file that is not there yet, and is gone at the end of the test.
class TemporaryPath {
 public:
  TemporaryPath() {
    close(mkstemp(path_));
    unlink(path_);
  }
  ~TemporaryPath() { unlink(path_); }
  const char* path() const { return path_; }
  off_t size() const {
    struct stat status = {};
    return stat(path_, &status) == 0 ? status.st_size : -1;
  }

 private:
  char path_[32] = "/tmp/keys-shared-XXXXXX";
};

volatile char& At(const SharedFile& file, size_t offset) {
  return static_cast<char*>(file.data())[offset];
}

// The wait status of a process that does the work: 0 when that returned true, else a signal or 1.
int InAProcess(const std::function<bool()>& work) {
  const pid_t child = fork();
  if (child == 0) _exit(work() ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

// Files of this process cannot grow from now on, as on a full disk.
void ForbidGrowing() {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_FSIZE, &none);
}

TEST_CASE("two of one path share what either writes, and a new one is zeros") {
  const TemporaryPath path;
  const SharedFile one(path.path(), kSize);
  const SharedFile two(path.path(), kSize);
  CHECK(At(one, 0) == 0);
  CHECK(At(one, kSize - 1) == 0);
  At(one, kSize - 1) = 7;
  CHECK(At(two, kSize - 1) == 7);
  CHECK(path.size() == kSize);
}

TEST_CASE("a file that was truncated is extended again, and shared as before") {
  const TemporaryPath path;
  CHECK(InAProcess([&] {
          SharedFile file(path.path(), kSize);
          At(file, 5000) = 7;
          if (!file.TakeProblem().empty() || truncate(path.path(), 0) != 0) return false;
          if (At(file, 5000) != 0) return false;
          At(file, 5000) = 8;
          const SharedFile other(path.path(), kSize);
          return At(other, 5000) == 8 && path.size() == kSize;
        }) == 0);
  CHECK(InAProcess([&] {
          SharedFile file(path.path(), kSize);
          At(file, 0) = 1;
          if (truncate(path.path(), 100) != 0) return false;
          At(file, kSize - 1) = 1;
          const std::string problem = file.TakeProblem();
          return problem.starts_with(path.path()) && problem.ends_with("extended again") &&
                 file.TakeProblem().empty();
        }) == 0);
}

TEST_CASE("a file that was truncated on a full disk leaves the process alone") {
  const TemporaryPath path;
  CHECK(InAProcess([&] {
          SharedFile file(path.path(), kSize);
          At(file, 5000) = 7;
          ForbidGrowing();
          if (truncate(path.path(), 0) != 0) return false;
          At(file, 5000) = 8;
          At(file, kSize - 1) = 9;
          return At(file, 5000) == 8 && At(file, 0) == 0 && path.size() == 0 &&
                 file.TakeProblem().ends_with("this process is alone");
        }) == 0);
}

TEST_CASE("a file that cannot be made is memory of this process") {
  const TemporaryPath path;
  CHECK(InAProcess([&] {
          ForbidGrowing();
          SharedFile file(path.path(), kSize);
          At(file, kSize - 1) = 7;
          return file.file() == -1 && file.TakeProblem().ends_with(": File too large");
        }) == 0);
  SharedFile file("/nonexistent/file", kSize);
  At(file, kSize - 1) = 7;
  CHECK(file.file() == -1);
  CHECK(file.TakeProblem() == "/nonexistent/file: No such file or directory");
  CHECK(SharedFile("", kSize).TakeProblem().empty());
  CHECK_FALSE(SharedFile("/dev/null", kSize).TakeProblem().empty());
  CHECK_FALSE(SharedFile("/tmp", kSize).TakeProblem().empty());
}

TEST_CASE("any other bus error still ends the process") {
  const TemporaryPath path;
  const TemporaryPath foreign;
  const int status = InAProcess([&] {
    const SharedFile file(path.path(), kSize);
    const int other = open(foreign.path(), O_RDWR | O_CREAT, 0600);
    void* const memory = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, other, 0);
    return *static_cast<volatile char*>(memory) == 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGBUS);
}

}  // namespace
}  // namespace keys
