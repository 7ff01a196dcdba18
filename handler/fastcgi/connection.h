// The FastCGI server: the listening socket and the connections that nginx keeps open. The only
// module that uses libfcgi, which parses the requests.
//
// libfcgi 2.4.2 was not made for an event loop. So it gets a request only when all of its bytes
// have arrived (request_frame checks them by MSG_PEEK), on a connection that we accepted:
// FCGX_Accept_r then parses and never waits. response_frame frames the responses; they are written
// in one call, or as the socket takes more: connections never block.
//
// A connection carries one request at a time. Each request has an id of its own, so that a late
// response, for a peer that has left, can never reach another request.
//
// Limits: a connection is closed when its peer breaks the protocol, does not complete a request
// within kRequestTimeout, reads nothing of its response for kAnswerTimeout or not all of it within
// kWholeAnswerTimeout, or leaves the connection idle for kIdleTimeout. The unsent bytes of all
// responses are limited to kMaxUnsent; see Respond.
//
// Errors: none are thrown. Thread rule: one thread; one FastCgi per process (libfcgi has globals).
#ifndef HANDLER_FASTCGI_CONNECTION_H_
#define HANDLER_FASTCGI_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "handler/api/http.h"
#include "handler/api/metrics.h"

namespace keys {

// Identifies a request from its arrival to its response; not reused. The lower 32 bits are its
// connection's descriptor, so they are small and differ between the requests in flight.
using RequestId = uint64_t;

class FastCgi {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kRequestTimeout{5};
  static constexpr std::chrono::seconds kAnswerTimeout{30};
  static constexpr std::chrono::seconds kWholeAnswerTimeout{300};
  static constexpr std::chrono::seconds kIdleTimeout{75};  // over nginx's keepalive_timeout, 60 s
  // Longer responses must fit into kMaxUnsent, because their peer may read them slowly.
  static constexpr size_t kMaxWrittenAtOnce = 64 * 1024;
  static constexpr size_t kMaxUnsent = 64 * 1024 * 1024;

  struct Events {
    // A request has arrived. Its views end with the call, which may call Respond.
    std::function<void(RequestId, const Request&)> request;
    // The peer of a request has left: Respond would do nothing.
    std::function<void(RequestId)> gone;
  };

  // Uses `listener`, a listening socket, and makes it non-blocking for every process that shares
  // it. Registers events with `epoll` under `listener_tag` and, for each connection, under a tag of
  // its own, 2^32 or above.
  FastCgi(int listener, int epoll, uint64_t listener_tag, Events events, Metrics& metrics);
  ~FastCgi();
  FastCgi(const FastCgi&) = delete;
  FastCgi& operator=(const FastCgi&) = delete;

  // The listener is readable: accepts one connection, so that the pool's processes share a burst.
  void Accept(Clock::time_point now);
  // epoll has reported these events for a connection's tag.
  void OnEvent(uint64_t tag, uint32_t events, Clock::time_point now);
  // Once per second: applies the timeouts above, and accepts again after descriptors ran out.
  void OnTime(Clock::time_point now);

  // Sends a whole CGI response, `head` and then `body`. True: it is sent, at once or as the peer
  // reads it, or the peer has left. False: nothing is written, because kMaxUnsent could be
  // exceeded; respond with something short. When nothing is unsent, any length is accepted.
  // Copies what cannot be sent at once. A body inside `owner` is not copied; `owner` is kept.
  bool Respond(RequestId id, std::string_view head, std::string_view body,
               std::shared_ptr<const std::string> owner, Clock::time_point now);

  // No new connections or requests from now on; requests that have arrived are still answered.
  void Drain(Clock::time_point now);
  size_t connections() const { return connections_; }
  bool is_sending() const { return unsent_ > 0; }  // a response is not sent completely
  size_t unsent() const { return unsent_; }        // bytes of such responses

 private:
  enum class State {
    kIdle,       // no byte of a request has arrived
    kReading,    // a part of a request has arrived
    kAnswering,  // the request waits for Respond
    kSending,    // a part of the response is unsent
  };
  struct Connection;
  Connection* FindConnection(uint64_t tag);
  Connection* FindRequest(RequestId id);
  uint64_t NewTag(int fd);
  void Read(Connection& connection, Clock::time_point now);
  void Serve(Connection& connection, Clock::time_point now);
  void Keep(Connection& connection, std::string_view head, std::string_view body,
            std::shared_ptr<const std::string> owner, Clock::time_point now);
  void Continue(Connection& connection, Clock::time_point now);
  void Release(Connection& connection);
  void Finish(Connection& connection, Clock::time_point now);
  void Close(Connection& connection);
  void Watch(const Connection& connection, int operation, uint32_t events);
  void SetAccepting(bool accepting);

  int listener_;
  int epoll_;
  uint64_t listener_tag_;
  Events events_;
  Metrics& metrics_;
  size_t max_connections_;
  std::vector<std::unique_ptr<Connection>> by_fd_;
  size_t connections_ = 0;
  size_t unsent_ = 0;
  uint32_t last_serial_ = 0;  // of tags and request ids; 0 is never used
  bool accepting_ = false;
  bool draining_ = false;
  std::vector<char> peeked_;
};

}  // namespace keys

#endif  // HANDLER_FASTCGI_CONNECTION_H_
