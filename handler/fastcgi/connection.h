// The FastCGI side: the listening socket and the connections that nginx keeps open. The only module
// that knows libfcgi, which does the protocol.
//
// How libfcgi 2.4.2 serves an event loop, which it was not made for: a request is handed to it only
// when all of its bytes have come (request_frame looks, by MSG_PEEK), on a connection that we
// accepted; so FCGX_Accept_r parses and never waits. `ipcFd`, `keepConnection` and `detached` are
// fields that fcgiapp.h calls private; this file alone touches them, and tests/unit and
// tests/faults would notice a library that took them differently. Connections never block: a
// response of up to kMaxWrittenAtOnce fits an empty socket buffer; a longer one is written by
// libfcgi into a memory file and leaves from there as the peer takes it.
//
// One request at a time on a connection. A peer that breaks the protocol, is silent in the middle
// of a request for kRequestTimeout, takes nothing of its answer for kAnswerTimeout or not all of it
// within kWholeAnswerTimeout, or leaves a connection unused for kIdleTimeout is disconnected.
//
// Errors: none are thrown. Thread rule: one thread; one FastCgi a process (libfcgi has globals).
#ifndef HANDLER_FASTCGI_CONNECTION_H_
#define HANDLER_FASTCGI_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "handler/api/http.h"
#include "handler/api/metrics.h"

namespace keys {

// Names a request from its arrival to its answer.
using RequestId = uint64_t;

class FastCgi {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kRequestTimeout{5};
  static constexpr std::chrono::seconds kAnswerTimeout{30};
  static constexpr std::chrono::seconds kWholeAnswerTimeout{300};
  static constexpr std::chrono::seconds kIdleTimeout{75};  // over nginx's keepalive_timeout, 60 s
  static constexpr size_t kMaxWrittenAtOnce = 64 * 1024;

  struct Events {
    // A request has come. Its views end with the call, which may call Respond.
    std::function<void(RequestId, const Request&)> request;
    // The peer of a request left: Respond would do nothing.
    std::function<void(RequestId)> gone;
  };

  // Takes `listener`, a listening socket, and makes it non-blocking for all who share it. Events
  // are registered with `epoll` under `listener_tag` or, at 2^32 and above, a connection's own tag:
  // the ticket of its requests.
  FastCgi(int listener, int epoll, uint64_t listener_tag, Events events, Metrics& metrics);
  ~FastCgi();
  FastCgi(const FastCgi&) = delete;
  FastCgi& operator=(const FastCgi&) = delete;

  // The listener is readable: takes one connection, so that a pool's processes share a burst.
  void Accept(Clock::time_point now);
  // A connection's tag came with these epoll events.
  void OnEvent(uint64_t tag, uint32_t events, Clock::time_point now);
  // Once a second: the timeouts above, and accepting again after there were no descriptors left.
  void OnTime(Clock::time_point now);

  // The whole CGI response. Does nothing when the peer has left.
  void Respond(RequestId ticket, std::string_view cgi_response, Clock::time_point now);

  // No new connections or requests from now on; requests that have come are still answered.
  void Drain(Clock::time_point now);
  size_t connections() const { return connections_; }
  bool is_sending() const;  // a long answer, which its peer has not taken yet

 private:
  enum class State {
    kIdle,       // nothing of a request has come
    kReading,    // a part of one has
    kAnswering,  // its owner works on the answer
    kSending,    // a long answer leaves from the memory file
  };
  struct Connection;
  Connection* Find(RequestId tag);
  void Read(Connection& connection, Clock::time_point now);
  void Serve(Connection& connection, Clock::time_point now);
  void Finish(Connection& connection, bool good, Clock::time_point now);
  void Continue(Connection& connection, Clock::time_point now);
  void Close(Connection& connection);
  void SetAccepting(bool accepting);

  int listener_;
  int epoll_;
  uint64_t listener_tag_;
  Events events_;
  Metrics& metrics_;
  size_t most_connections_;
  std::vector<std::unique_ptr<Connection>> by_fd_;
  size_t connections_ = 0;
  uint32_t last_serial_ = 0;  // 0 names no connection
  bool accepting_ = false;
  bool draining_ = false;
  std::vector<char> peeked_;
};

}  // namespace keys

#endif  // HANDLER_FASTCGI_CONNECTION_H_
