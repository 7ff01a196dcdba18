// The FastCGI side: the listening socket and the connections that nginx keeps open. The only module
// that knows libfcgi, which parses the requests.
//
// How libfcgi 2.4.2 serves an event loop, which it was not made for: a request is handed to it only
// when all of its bytes have come (request_frame looks, by MSG_PEEK), on a connection that we
// accepted; so FCGX_Accept_r parses and never waits. Answers are framed by response_frame and
// written in one call, or as the peer takes them: connections never block.
//
// One request at a time on a connection. Each has an id of its own, so that an answer that comes
// late, for a peer that has left, can never reach another request, of that connection or another.
//
// Limits: a peer that breaks the protocol, is silent in the middle of a request for
// kRequestTimeout, takes nothing of its answer for kAnswerTimeout or not all of it within
// kWholeAnswerTimeout, or leaves a connection unused for kIdleTimeout is disconnected. What peers
// have not taken of long answers is kMaxUnsent bytes at most, in all.
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

// Names a request from its arrival to its answer; never again another one. The lower 32 bits are
// its connection's descriptor, so they are small and tell the requests apart that are in flight.
using RequestId = uint64_t;

class FastCgi {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kRequestTimeout{5};
  static constexpr std::chrono::seconds kAnswerTimeout{30};
  static constexpr std::chrono::seconds kWholeAnswerTimeout{300};
  static constexpr std::chrono::seconds kIdleTimeout{75};  // over nginx's keepalive_timeout, 60 s
  // A longer answer may have to wait for its peer: it needs room in the budget.
  static constexpr size_t kMaxWrittenAtOnce = 64 * 1024;
  static constexpr size_t kMaxUnsent = 64 * 1024 * 1024;

  struct Events {
    // A request has come. Its views end with the call, which may call Respond.
    std::function<void(RequestId, const Request&)> request;
    // The peer of a request left: Respond would do nothing.
    std::function<void(RequestId)> gone;
  };

  // Takes `listener`, a listening socket, and makes it non-blocking for all who share it. Events
  // are registered with `epoll` under `listener_tag` or, at 2^32 and above, a connection's own tag.
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

  // Answers with a whole CGI response, `head` and then `body`. True: it leaves, at once or as the
  // peer takes it, or the peer has left. False: nothing is written, since kMaxUnsent would be
  // exceeded; answer something short. An answer that is longer than that passes alone.
  // What leaves later is copied, but for a body that lies in `owner`, which is kept instead.
  bool Respond(RequestId id, std::string_view head, std::string_view body,
               std::shared_ptr<const std::string> owner, Clock::time_point now);

  // No new connections or requests from now on; requests that have come are still answered.
  void Drain(Clock::time_point now);
  size_t connections() const { return connections_; }
  bool is_sending() const { return unsent_ > 0; }  // a peer has not taken all of its answer
  size_t unsent() const { return unsent_; }        // bytes of such answers

 private:
  enum class State {
    kIdle,       // nothing of a request has come
    kReading,    // a part of one has
    kAnswering,  // its owner works on the answer
    kSending,    // its peer has not taken all of it
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
  uint32_t last_serial_ = 0;  // of tags and request ids; 0 is none
  bool accepting_ = false;
  bool draining_ = false;
  std::vector<char> peeked_;
};

}  // namespace keys

#endif  // HANDLER_FASTCGI_CONNECTION_H_
