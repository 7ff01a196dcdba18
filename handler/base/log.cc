#include "handler/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>
#include <string>

#include "handler/base/text.h"

namespace keys {
namespace {

constexpr size_t kMaxGathered = 256 * 1024;  // beyond this, lines are dropped and counted
constexpr size_t kMaxValue = 512;            // a longer value is cut

struct State {
  std::string gathered;
  int64_t dropped = 0;
  int fd = STDERR_FILENO;
  bool is_socket = false;
  bool is_blocking_pipe = false;
  time_t second = 0;
  char second_text[20] = {};  // "2026-11-24T09:42:11"

  State() {
    struct stat status = {};
    if (fstat(STDERR_FILENO, &status) != 0) return;
    is_socket = S_ISSOCK(status.st_mode);
    // A pipe of our own opening does not block, and leaves the flags of the shared one alone. Where
    // it is not ours to open, it is written to as much as it takes at once.
    if (S_ISFIFO(status.st_mode)) {
      const int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
      if (own >= 0) fd = own;
      is_blocking_pipe = own < 0;
    }
  }
};

State& TheState() {
  static State state;
  return state;
}

void AppendTime(State& state, std::string& line) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != state.second || state.second_text[0] == '\0') {
    state.second = now.tv_sec;
    tm utc{};
    gmtime_r(&now.tv_sec, &utc);
    strftime(state.second_text, sizeof state.second_text, "%FT%T", &utc);
  }
  char fraction[] = ".000Z";
  WriteDigits(fraction + 1, static_cast<int>(now.tv_nsec / 1000000), 3);
  line += state.second_text;
  line += fraction;
}

bool IsPlain(char c) {
  return c > ' ' && c < 0x7F && c != '"' && c != '=' && c != '\\';
}

void AppendText(std::string& line, std::string_view text) {
  text = text.substr(0, kMaxValue);
  bool plain = !text.empty();
  for (const char c : text) plain = plain && IsPlain(c);
  if (plain) {
    line += text;
    return;
  }
  line += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (byte < ' ' || byte == 0x7F) {
      char escape[] = "\\x00";
      WriteHex(escape + 2, byte);
      line += escape;
    } else {
      line += c;
    }
  }
  line += '"';
}

void AppendLine(State& state, Level level, std::string_view event,
                std::initializer_list<LogField> fields) {
  static constexpr std::string_view kLevels[] = {" info ", " warning ", " error "};
  std::string& line = state.gathered;
  AppendTime(state, line);
  line += kLevels[static_cast<size_t>(level)];
  line += event;
  for (const LogField& field : fields) {
    line += ' ';
    line += field.name;
    line += '=';
    if (field.is_number) {
      AppendNumber(line, field.number_value);
    } else {
      AppendText(line, field.text_value);
    }
  }
  line += '\n';
}

// Never blocks. The number of bytes that were taken.
size_t WriteWhatFits(const State& state) {
  std::string_view left = state.gathered;
  while (!left.empty()) {
    size_t size = left.size();
    if (state.is_blocking_pipe) {
      pollfd pipe{.fd = state.fd, .events = POLLOUT, .revents = 0};
      if (poll(&pipe, 1, 0) != 1 || (pipe.revents & POLLOUT) == 0) break;
      size = std::min<size_t>(size, PIPE_BUF);  // which a pipe that is ready takes
    }
    const ssize_t written = state.is_socket
                                ? send(state.fd, left.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : write(state.fd, left.data(), size);
    if (written <= 0) break;
    left.remove_prefix(static_cast<size_t>(written));
  }
  return state.gathered.size() - left.size();
}

}  // namespace

void Log(Level level, std::string_view event, std::initializer_list<LogField> fields) {
  State& state = TheState();
  if (state.gathered.size() >= kMaxGathered) {
    ++state.dropped;
  } else {
    AppendLine(state, level, event, fields);
  }
  if (level == Level::kError) FlushLog();
}

void FlushLog() {
  State& state = TheState();
  if (state.gathered.empty()) return;
  if (state.dropped > 0 && state.gathered.size() < kMaxGathered) {
    const int64_t dropped = state.dropped;
    state.dropped = 0;
    AppendLine(state, Level::kWarning, "log_lines_dropped", {{"lines", dropped}});
  }
  const size_t written = WriteWhatFits(state);
  state.gathered.erase(0, written);
  // What could not be written stays for the next call; kMaxGathered bounds it.
}

}  // namespace keys
