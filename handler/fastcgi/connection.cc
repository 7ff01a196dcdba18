#include "handler/fastcgi/connection.h"

#include <fcgiapp.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "handler/base/log.h"
#include "handler/fastcgi/request_frame.h"

namespace keys {

struct FastCgi::Connection {
  int fd = -1;
  uint32_t serial = 0;  // tells this connection from an earlier one on the same fd
  State state = State::kIdle;
  Clock::time_point since{};        // of the state; kSending: of the last progress
  Clock::time_point answered_at{};  // kSending
  bool used = false;                // a request has come over it
  bool close_after = false;         // the peer does not keep the connection
  RequestId tag() const { return RequestId{serial} << 32 | static_cast<uint32_t>(fd); }
  FCGX_Request request{};
  int memory_file = -1;
  off_t sent = 0;
};

namespace {

constexpr uint32_t kConnectionEvents = EPOLLIN | EPOLLRDHUP | EPOLLET;
constexpr size_t kSpareDescriptors = 32;  // database, key files, memory files, …
constexpr size_t kMaxConnections = 4096;

std::string_view Parameter(const FCGX_Request& request, const char* name) {
  const char* const value = FCGX_GetParam(name, request.envp);
  return value == nullptr ? std::string_view{} : value;
}

size_t MostConnections() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto descriptors = static_cast<size_t>(limit.rlim_cur);
  return std::clamp(descriptors, 2 * kSpareDescriptors, kMaxConnections + kSpareDescriptors) -
         kSpareDescriptors;
}

}  // namespace

FastCgi::FastCgi(int listener, int epoll, uint64_t listener_tag, Events events, Metrics& metrics)
    : listener_(listener),
      epoll_(epoll),
      listener_tag_(listener_tag),
      events_(std::move(events)),
      metrics_(metrics),
      most_connections_(MostConnections()),
      peeked_(kMaxRequestLength + 1) {
  FCGX_Init();  // installs signal handlers, which server.cc takes back
  fcntl(listener_, F_SETFL, fcntl(listener_, F_GETFL) | O_NONBLOCK);
  SetAccepting(true);
}

FastCgi::~FastCgi() {
  for (const auto& connection : by_fd_) {
    if (connection && connection->fd >= 0) Close(*connection);
  }
}

void FastCgi::SetAccepting(bool accepting) {
  if (accepting == accepting_) return;
  accepting_ = accepting;
  epoll_event event{.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.u64 = listener_tag_}};
  epoll_ctl(epoll_, accepting ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener_, &event);
}

void FastCgi::Accept(Clock::time_point now) {
  if (draining_) return;
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      Log(Level::kWarning, "accept_paused", {{"reason", std::strerror(errno)}});
      SetAccepting(false);  // until OnTime
    }
    return;
  }
  const auto place = static_cast<size_t>(fd);
  if (by_fd_.size() <= place) by_fd_.resize(place + 1);
  if (!by_fd_[place]) by_fd_[place] = std::make_unique<Connection>();
  Connection& connection = *by_fd_[place];
  connection.fd = fd;
  if (++last_serial_ == 0) ++last_serial_;
  connection.serial = last_serial_;
  connection.state = State::kIdle;
  connection.since = now;
  connection.used = false;
  FCGX_InitRequest(&connection.request, -1, 0);
  ++connections_;
  epoll_event event{.events = kConnectionEvents, .data = {.u64 = connection.tag()}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  if (connections_ >= most_connections_) {
    Log(Level::kWarning, "accept_paused", {{"reason", "as many connections as descriptors allow"}});
    SetAccepting(false);
  }
}

FastCgi::Connection* FastCgi::Find(RequestId tag) {
  const uint64_t fd = tag & 0xFFFFFFFF;
  if (fd >= by_fd_.size() || !by_fd_[fd] || by_fd_[fd]->fd < 0) return nullptr;
  return by_fd_[fd]->tag() == tag ? by_fd_[fd].get() : nullptr;
}

void FastCgi::OnEvent(uint64_t tag, uint32_t events, Clock::time_point now) {
  Connection* const connection = Find(tag);
  if (connection == nullptr) return;  // closed earlier in this turn
  const bool is_gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
  switch (connection->state) {
    case State::kIdle:
    case State::kReading:
      // Nobody waits for the answer to what a peer sent before it left.
      if (is_gone) {
        char byte = 0;
        const bool had_sent = recv(connection->fd, &byte, 1, MSG_PEEK) == 1;
        if (had_sent) metrics_.Add(Counter::kClientsGone);
        Close(*connection);
      } else {
        Read(*connection, now);
      }
      break;
    case State::kAnswering:
      // Anything but its going is a second request before the first is answered: not ours to read.
      if (is_gone) {
        metrics_.Add(Counter::kClientsGone);
        events_.gone(tag);
        Close(*connection);
      }
      break;
    case State::kSending:
      if (is_gone) {
        Close(*connection);
      } else {
        Continue(*connection, now);
      }
      break;
  }
}

void FastCgi::Read(Connection& connection, Clock::time_point now) {
  const ssize_t length = recv(connection.fd, peeked_.data(), peeked_.size(), MSG_PEEK);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) {
    Close(connection);
    return;
  }
  switch (CheckRequest({peeked_.data(), static_cast<size_t>(length)})) {
    case RequestState::kComplete:
      Serve(connection, now);
      break;
    case RequestState::kMalformed:
      metrics_.Add(Counter::kProtocolErrors);
      Log(Level::kWarning, "fastcgi_malformed", {{"bytes", static_cast<int64_t>(length)}});
      Close(connection);
      break;
    case RequestState::kIncomplete:
      if (connection.state == State::kIdle) {
        connection.state = State::kReading;
        connection.since = now;
      }
      break;
  }
}

// All bytes of a request are there: libfcgi parses them without waiting.
void FastCgi::Serve(Connection& connection, Clock::time_point now) {
  FCGX_Request& fcgi = connection.request;
  fcgi.ipcFd = connection.fd;
  fcgi.keepConnection = 1;          // nothing is closed before it is parsed
  fcgi.detached = 1;                // should libfcgi close it after all, it does not linger
  if (FCGX_Accept_r(&fcgi) != 0) {  // it has closed the descriptor
    metrics_.Add(Counter::kProtocolErrors);
    Log(Level::kWarning, "fastcgi_malformed", {{"bytes", int64_t{0}}});
    connection.fd = -1;
    --connections_;
    return;
  }
  connection.used = true;
  connection.close_after = fcgi.keepConnection == 0;
  fcgi.keepConnection = 1;  // this file closes
  char discarded[4096];
  while (FCGX_GetStr(discarded, sizeof discarded, fcgi.in) > 0) {
  }
  connection.state = State::kAnswering;
  connection.since = now;
  const Request request{
      .method = Parameter(fcgi, "REQUEST_METHOD"),
      .cookie = Parameter(fcgi, "HTTP_COOKIE"),
      .sec_fetch_site = Parameter(fcgi, "HTTP_SEC_FETCH_SITE"),
      .request_id = Parameter(fcgi, "REQUEST_ID"),
      .has_api_key = !Parameter(fcgi, "KEYS_API_KEY_SIGN").empty(),
      .status_page = Parameter(fcgi, "KEYS_STATUS_PAGE"),
  };
  events_.request(connection.tag(), request);
}

void FastCgi::Respond(RequestId ticket, std::string_view cgi_response, Clock::time_point now) {
  Connection* const connection = Find(ticket);
  if (connection == nullptr || connection->state != State::kAnswering) return;
  FCGX_Request& fcgi = connection->request;
  if (cgi_response.size() > kMaxWrittenAtOnce) {
    connection->memory_file = memfd_create("keys-fcgi response", MFD_CLOEXEC);
    if (connection->memory_file < 0) {
      Log(Level::kError, "response_dropped", {{"reason", std::strerror(errno)}});
      Close(*connection);
      return;
    }
    fcgi.ipcFd = connection->memory_file;
  }
  FCGX_PutStr(cgi_response.data(), static_cast<int>(cgi_response.size()), fcgi.out);
  FCGX_Finish_r(&fcgi);
  const bool good = fcgi.ipcFd >= 0;  // on an error libfcgi has closed it
  fcgi.ipcFd = -1;
  if (connection->memory_file >= 0 && good) {
    connection->state = State::kSending;
    connection->since = connection->answered_at = now;
    connection->sent = 0;
    Continue(*connection, now);
    return;
  }
  if (!good) {
    if (connection->memory_file >= 0) {
      connection->memory_file = -1;
    } else {
      connection->fd = -1;
      --connections_;
      return;
    }
  }
  Finish(*connection, good, now);
}

// More of a long answer, as much as the socket takes.
void FastCgi::Continue(Connection& connection, Clock::time_point now) {
  const off_t size = lseek(connection.memory_file, 0, SEEK_END);
  while (connection.sent < size) {
    const ssize_t count = sendfile(connection.fd, connection.memory_file, &connection.sent,
                                   static_cast<size_t>(size - connection.sent));
    if (count > 0) {
      connection.since = now;
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      epoll_event event{.events = kConnectionEvents | EPOLLOUT, .data = {.u64 = connection.tag()}};
      epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
      return;
    }
    Close(connection);
    return;
  }
  close(connection.memory_file);
  connection.memory_file = -1;
  epoll_event event{.events = kConnectionEvents, .data = {.u64 = connection.tag()}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
  Finish(connection, true, now);
}

// The answer has left.
void FastCgi::Finish(Connection& connection, bool good, Clock::time_point now) {
  connection.state = State::kIdle;
  connection.since = now;
  if (!good || connection.close_after || draining_) Close(connection);
}

void FastCgi::Close(Connection& connection) {
  if (connection.state == State::kAnswering) {
    connection.request.ipcFd = -1;
    FCGX_Free(&connection.request, 0);
  }
  if (connection.memory_file >= 0) close(connection.memory_file);
  connection.memory_file = -1;
  close(connection.fd);
  connection.fd = -1;
  connection.state = State::kIdle;
  --connections_;
}

bool FastCgi::is_sending() const {
  return std::any_of(by_fd_.begin(), by_fd_.end(), [](const auto& place) {
    return place && place->fd >= 0 && place->state == State::kSending;
  });
}

void FastCgi::OnTime(Clock::time_point now) {
  for (const auto& place : by_fd_) {
    if (!place || place->fd < 0) continue;
    const Clock::duration spent = now - place->since;
    const bool too_long =
        (place->state == State::kIdle && spent > kIdleTimeout) ||
        (place->state == State::kReading && spent > kRequestTimeout) ||
        (place->state == State::kSending &&
         (spent > kAnswerTimeout || now - place->answered_at > kWholeAnswerTimeout));
    if (!too_long) continue;
    if (place->state != State::kIdle) {
      Log(Level::kWarning, "fastcgi_timeout",
          {{"state", place->state == State::kReading ? "reading" : "sending"}});
      metrics_.Add(Counter::kProtocolErrors);
    }
    Close(*place);
  }
  if (!draining_ && connections_ < most_connections_) SetAccepting(true);
}

void FastCgi::Drain(Clock::time_point now) {
  draining_ = true;
  SetAccepting(false);
  for (const auto& place : by_fd_) {
    if (!place || place->fd < 0) continue;
    // A request may have come since epoll last spoke: it is served; nginx asks another process for
    // one that comes later, since nothing of it was read. It does so only on a connection that it
    // had kept: a new one, whose first request is on its way, stays open for it.
    if (place->state == State::kIdle) Read(*place, now);
    if (place->fd >= 0 && place->state == State::kIdle && place->used) Close(*place);
  }
}

}  // namespace keys
