#include "handler/fastcgi/connection.h"

#include <fcgiapp.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "handler/base/log.h"
#include "handler/fastcgi/request_frame.h"
#include "handler/fastcgi/response_frame.h"

namespace keys {

struct FastCgi::Connection {
  int fd = -1;
  uint64_t tag = 0;  // tells this connection from an earlier one on the same fd
  State state = State::kIdle;
  Clock::time_point since{};  // start of the state; kSending: time of the last progress
  bool used = false;          // has carried a request
  bool close_after = false;   // the peer does not want to keep the connection

  // kAnswering, kSending
  RequestId request = 0;
  uint16_t fcgi_id = 0;  // the peer's id of the request

  // kSending
  Clock::time_point answered_at{};
  std::string text;                          // the head, and the body if it has no owner
  std::shared_ptr<const std::string> owner;  // of the body
  std::string_view head;
  std::string_view body;
  size_t sent = 0;
  size_t unsent = 0;
};

namespace {

constexpr uint32_t kConnectionEvents = EPOLLIN | EPOLLRDHUP | EPOLLET;
constexpr size_t kSpareDescriptors = 32;  // database, key files, …
constexpr size_t kMaxConnections = 4096;

// A request as libfcgi parses it. The only code that uses what fcgiapp.h calls private: `ipcFd`,
// `keepConnection`, `detached`. tests/unit/fastcgi and tests/faults fail with a libfcgi that treats
// them differently.
class LibfcgiRequest {
 public:
  // Parses a request whose bytes have all arrived on `fd`. `fd` stays open, unless the request is
  // not good: then libfcgi has closed it. A body is read and discarded.
  explicit LibfcgiRequest(int fd) {
    FCGX_InitRequest(&request_, -1, 0);
    request_.ipcFd = fd;
    request_.keepConnection = 1;  // so that libfcgi closes nothing before it has parsed
    request_.detached = 1;        // so that libfcgi does not linger when it closes after all
    is_good_ = FCGX_Accept_r(&request_) == 0;
    if (!is_good_) return;
    char dropped[4096];
    while (FCGX_GetStr(dropped, sizeof dropped, request_.in) > 0) {
    }
  }
  ~LibfcgiRequest() { FCGX_Free(&request_, 0); }  // writes nothing, closes nothing
  LibfcgiRequest(const LibfcgiRequest&) = delete;
  LibfcgiRequest& operator=(const LibfcgiRequest&) = delete;

  bool is_good() const { return is_good_; }
  bool keeps_connection() const { return request_.keepConnection != 0; }
  uint16_t id() const { return static_cast<uint16_t>(request_.requestId); }
  std::string_view Parameter(const char* name) const {  // valid as long as this
    const char* const value = FCGX_GetParam(name, request_.envp);
    return value == nullptr ? std::string_view{} : value;
  }

 private:
  FCGX_Request request_;
  bool is_good_ = false;
};

// Writes as much of the rest of a response as the socket takes. False: the peer is gone.
bool Write(int fd, ResponseFrame& frame, size_t& sent) {
  while (sent < frame.size()) {
    const std::span<const iovec> pieces = frame.Pieces(sent);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    const ssize_t count = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

size_t MaxConnections() {
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
      max_connections_(MaxConnections()),
      peeked_(kMaxRequestLength + 1) {
  FCGX_Init();  // installs signal handlers, which server.cc replaces
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
  const auto position = static_cast<size_t>(fd);
  if (by_fd_.size() <= position) by_fd_.resize(position + 1);
  if (!by_fd_[position]) by_fd_[position] = std::make_unique<Connection>();
  Connection& connection = *by_fd_[position];
  connection.fd = fd;
  connection.tag = NewTag(fd);
  connection.state = State::kIdle;
  connection.since = now;
  connection.used = false;
  ++connections_;
  Watch(connection, EPOLL_CTL_ADD, kConnectionEvents);
  if (connections_ >= max_connections_) {
    Log(Level::kWarning, "accept_paused", {{"reason", "as many connections as descriptors allow"}});
    SetAccepting(false);
  }
}

uint64_t FastCgi::NewTag(int fd) {
  if (++last_serial_ == 0) ++last_serial_;
  return uint64_t{last_serial_} << 32 | static_cast<uint32_t>(fd);
}

void FastCgi::Watch(const Connection& connection, int operation, uint32_t events) {
  epoll_event event{.events = events, .data = {.u64 = connection.tag}};
  epoll_ctl(epoll_, operation, connection.fd, &event);
}

FastCgi::Connection* FastCgi::FindConnection(uint64_t tag) {
  const uint64_t fd = tag & 0xFFFFFFFF;
  if (fd >= by_fd_.size() || !by_fd_[fd] || by_fd_[fd]->fd < 0) return nullptr;
  return by_fd_[fd]->tag == tag ? by_fd_[fd].get() : nullptr;
}

FastCgi::Connection* FastCgi::FindRequest(RequestId id) {
  const uint64_t fd = id & 0xFFFFFFFF;
  if (fd >= by_fd_.size() || !by_fd_[fd] || by_fd_[fd]->state != State::kAnswering) return nullptr;
  return by_fd_[fd]->request == id ? by_fd_[fd].get() : nullptr;
}

void FastCgi::OnEvent(uint64_t tag, uint32_t events, Clock::time_point now) {
  Connection* const connection = FindConnection(tag);
  if (connection == nullptr) return;  // closed earlier in this turn
  const bool is_gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
  switch (connection->state) {
    case State::kIdle:
    case State::kReading:
      // Drop what a peer sent before it left: nobody waits for the response.
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
      // Other input is a pipelined request, which we do not support; leave it unread.
      if (is_gone) {
        metrics_.Add(Counter::kClientsGone);
        const RequestId gone = connection->request;
        Close(*connection);
        events_.gone(gone);
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

// All bytes of the request have arrived, so libfcgi parses them without waiting.
void FastCgi::Serve(Connection& connection, Clock::time_point now) {
  const LibfcgiRequest parsed(connection.fd);
  if (!parsed.is_good()) {
    metrics_.Add(Counter::kProtocolErrors);
    Log(Level::kWarning, "fastcgi_malformed", {{"bytes", int64_t{0}}});
    connection.fd = -1;
    --connections_;
    return;
  }
  connection.used = true;
  connection.close_after = !parsed.keeps_connection();
  connection.state = State::kAnswering;
  connection.since = now;
  connection.request = NewTag(connection.fd);
  connection.fcgi_id = parsed.id();
  events_.request(connection.request,
                  RequestFrom([&](const char* name) { return parsed.Parameter(name); }));
}

bool FastCgi::Respond(RequestId id, std::string_view head, std::string_view body,
                      std::shared_ptr<const std::string> owner, Clock::time_point now) {
  Connection* const connection = FindRequest(id);
  if (connection == nullptr) return true;
  ResponseFrame frame(connection->fcgi_id, head, body);
  if (frame.size() > kMaxWrittenAtOnce && unsent_ > 0 && unsent_ + frame.size() > kMaxUnsent) {
    return false;
  }
  connection->sent = 0;
  if (!Write(connection->fd, frame, connection->sent)) {
    Close(*connection);
  } else if (connection->sent == frame.size()) {
    Finish(*connection, now);
  } else {
    connection->unsent = frame.size() - connection->sent;
    Keep(*connection, head, body, std::move(owner), now);
  }
  return true;
}

// Keeps the unsent part of a response, which Continue sends.
void FastCgi::Keep(Connection& connection, std::string_view head, std::string_view body,
                   std::shared_ptr<const std::string> owner, Clock::time_point now) {
  connection.text.reserve(head.size() + (owner ? 0 : body.size()));
  connection.text = head;
  if (owner) {
    connection.body = body;
  } else {
    connection.text += body;
    connection.body = {};
  }
  connection.head = connection.text;
  connection.owner = std::move(owner);
  connection.state = State::kSending;
  connection.since = connection.answered_at = now;
  unsent_ += connection.unsent;
  Watch(connection, EPOLL_CTL_MOD, kConnectionEvents | EPOLLOUT);
}

// Sends as much of the rest of a response as the socket takes.
void FastCgi::Continue(Connection& connection, Clock::time_point now) {
  assert(connection.state == State::kSending);
  ResponseFrame frame(connection.fcgi_id, connection.head, connection.body);
  const size_t before = connection.sent;
  if (!Write(connection.fd, frame, connection.sent)) {
    Close(connection);
    return;
  }
  const size_t taken = connection.sent - before;
  if (taken > 0) connection.since = now;
  connection.unsent -= taken;
  unsent_ -= taken;
  if (connection.unsent > 0) return;
  Release(connection);
  Watch(connection, EPOLL_CTL_MOD, kConnectionEvents);
  Finish(connection, now);
}

// Releases the memory of a response, sent or not.
void FastCgi::Release(Connection& connection) {
  unsent_ -= connection.unsent;
  connection.unsent = 0;
  connection.head = connection.body = {};
  connection.owner.reset();
  std::string().swap(connection.text);
}

// The response is sent.
void FastCgi::Finish(Connection& connection, Clock::time_point now) {
  connection.state = State::kIdle;
  connection.since = now;
  if (connection.close_after || draining_) Close(connection);
}

void FastCgi::Close(Connection& connection) {
  if (connection.state == State::kSending) Release(connection);
  close(connection.fd);
  connection.fd = -1;
  connection.state = State::kIdle;
  --connections_;
}

void FastCgi::OnTime(Clock::time_point now) {
  for (const auto& connection : by_fd_) {
    if (!connection || connection->fd < 0) continue;
    const Clock::duration spent = now - connection->since;
    const bool too_long =
        (connection->state == State::kIdle && spent > kIdleTimeout) ||
        (connection->state == State::kReading && spent > kRequestTimeout) ||
        (connection->state == State::kSending &&
         (spent > kAnswerTimeout || now - connection->answered_at > kWholeAnswerTimeout));
    if (!too_long) continue;
    if (connection->state != State::kIdle) {
      Log(Level::kWarning, "fastcgi_timeout",
          {{"state", connection->state == State::kReading ? "reading" : "sending"}});
    }
    // A client that reads its response slowly breaks no protocol.
    if (connection->state == State::kReading) metrics_.Add(Counter::kProtocolErrors);
    Close(*connection);
  }
  if (draining_ || connections_ >= max_connections_) return;
  SetAccepting(true);
  Accept(now);  // the kernel tells one process; that one may have ended since
}

void FastCgi::Drain(Clock::time_point now) {
  draining_ = true;
  SetAccepting(false);
  for (const auto& connection : by_fd_) {
    if (!connection || connection->fd < 0) continue;
    // Serve a request that has arrived since the last epoll_wait. One that arrives later is unread
    // when we close, so nginx sends it to another process. nginx does so only for a connection that
    // it had kept: a new connection stays open for its first request, which is on its way.
    if (connection->state == State::kIdle) Read(*connection, now);
    if (connection->fd >= 0 && connection->state == State::kIdle && connection->used)
      Close(*connection);
  }
}

}  // namespace keys
