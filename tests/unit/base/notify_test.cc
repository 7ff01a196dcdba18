#include "handler/base/notify.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>

namespace keys {
namespace {

// A service manager's socket of that name, as NOTIFY_SOCKET writes it; the environment names it.
class Manager {
 public:
  explicit Manager(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path);
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(bind(fd_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~Manager() {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  std::string Receive() {
    std::array<char, 100> text;
    const ssize_t got = recv(fd_, text.data(), text.size(), 0);
    return got < 0 ? "nothing" : std::string(text.data(), static_cast<size_t>(got));
  }

 private:
  int fd_;
};

TEST_CASE("the service manager is told, by a path or an abstract name") {
  const std::string own = std::to_string(getpid());
  const std::string path = "/tmp/keys-notify-" + own;
  unlink(path.c_str());  // of a process of this number that was killed
  for (const std::string& name : {path, "@keys-notify/" + own}) {
    CAPTURE(name);
    Manager manager(name);
    NotifyServiceManager("READY=1");
    CHECK(manager.Receive() == "READY=1");
    NotifyServiceManager("STOPPING=1");
    CHECK(manager.Receive() == "STOPPING=1");
    CHECK(manager.Receive() == "nothing");
  }
  unlink(path.c_str());
}

TEST_CASE("nobody is told where nobody listens, and nothing fails for it") {
  for (const std::string& name :
       {std::string(), std::string("/nowhere/notify"), "/" + std::string(200, 'x'),
        std::string("relative"), std::string("vsock:2:1234")}) {
    CAPTURE(name);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    NotifyServiceManager("READY=1");
  }
  unsetenv("NOTIFY_SOCKET");
  NotifyServiceManager("READY=1");
}

TEST_CASE("a watchdog of another process is none of ours") {
  struct Row {
    const char *microseconds, *pid;
    bool expected;
  };
  const std::string own = std::to_string(getpid());
  for (const Row& row : {Row{nullptr, nullptr, false}, Row{nullptr, own.c_str(), false},
                         Row{"60000000", nullptr, true}, Row{"60000000", own.c_str(), true},
                         Row{"60000000", "1", false}}) {
    CAPTURE(row.pid);
    for (const auto& [name, value] :
         {std::pair{"WATCHDOG_USEC", row.microseconds}, std::pair{"WATCHDOG_PID", row.pid}}) {
      value == nullptr ? unsetenv(name) : setenv(name, value, 1);
    }
    CHECK(ExpectsWatchdog() == row.expected);
  }
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
}

}  // namespace
}  // namespace keys
