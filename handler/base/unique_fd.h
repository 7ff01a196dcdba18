// Owns a file descriptor and closes it. A negative one is none: what open(2) and its like return on
// an error.
#ifndef HANDLER_BASE_UNIQUE_FD_H_
#define HANDLER_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace keys {

class UniqueFd {
 public:
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// The descriptor that `call` has returned; throws std::system_error when it has returned none.
inline int NeedFd(int fd, const char* call) {
  if (fd < 0) throw std::system_error(errno, std::generic_category(), call);
  return fd;
}

}  // namespace keys

#endif  // HANDLER_BASE_UNIQUE_FD_H_
