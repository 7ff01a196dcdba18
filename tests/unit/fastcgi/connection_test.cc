#include "handler/fastcgi/connection.h"

#include <doctest/doctest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace keys {
namespace {

using namespace std::string_literals;
using Clock = FastCgi::Clock;

constexpr uint64_t kListenerTag = 1;
constexpr size_t kMegabyte = 1024 * 1024;

std::string Record(char type, const std::string& content) {
  const std::string header = {1,
                              type,
                              0,
                              7,
                              static_cast<char>(content.size() >> 8),
                              static_cast<char>(content.size() & 255),
                              0,
                              0};
  return header + content;
}

std::string Request(const std::string& method, bool keep = true) {
  const std::string begin = {0, 1, static_cast<char>(keep), 0, 0, 0, 0, 0};
  const std::string pair = {14, static_cast<char>(method.size())};
  return Record(1, begin) + Record(4, pair + "REQUEST_METHOD" + method) + Record(4, "") +
         Record(5, "");
}

// A listener in the abstract namespace, its FastCgi, and what it was told.
struct Fixture {
  Fixture() {
    address.sun_family = AF_UNIX;
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0);
    socklen_t length = sizeof address;
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
    address_length = length;
    listen(listener, 8);
    fastcgi = std::make_unique<FastCgi>(
        listener, epoll, kListenerTag,
        FastCgi::Events{.request =
                            [this](RequestId id, const keys::Request& request) {
                              ids.push_back(id);
                              methods.emplace_back(request.method);
                            },
                        .gone = [this](RequestId id) { gone.push_back(id); }},
        metrics);
  }
  ~Fixture() {
    fastcgi.reset();
    for (const int peer : peers) close(peer);
    close(epoll);
    close(listener);
  }

  int Open() {
    peers.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    return peers.back();
  }

  int Connect() { return Connect(Open()); }

  int Connect(int peer) {
    REQUIRE(connect(peer, reinterpret_cast<sockaddr*>(&address), address_length) == 0);
    Turn();
    return peer;
  }

  void Send(int peer, const std::string& bytes) {
    REQUIRE(send(peer, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    Turn();
  }

  // What has come; "closed" at the end when the peer is.
  std::string Receive(int peer) {
    std::string bytes;
    std::array<char, 65536> some;
    ssize_t count = 0;
    while ((count = recv(peer, some.data(), some.size(), 0)) > 0) {
      bytes.append(some.data(), static_cast<size_t>(count));
    }
    Turn();
    return count == 0 ? bytes + "closed" : bytes;
  }

  void Turn() {
    std::array<epoll_event, 8> events;
    int count = 0;
    while ((count = epoll_wait(epoll, events.data(), 8, 0)) > 0) {
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        if (event.data.u64 == kListenerTag) {
          fastcgi->Accept(now);
        } else {
          fastcgi->OnEvent(event.data.u64, event.events, now);
        }
      }
    }
  }

  bool Respond(RequestId id, const std::string& text) {
    return fastcgi->Respond(id, text, {}, nullptr, now);
  }

  Clock::time_point now = Clock::now();
  Metrics metrics{""};
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  int epoll = epoll_create1(0);
  sockaddr_un address{};
  socklen_t address_length = 0;
  std::unique_ptr<FastCgi> fastcgi;
  std::vector<int> peers;
  std::vector<RequestId> ids;
  std::vector<std::string> methods;
  std::vector<RequestId> gone;
};

std::string Framed(const std::string& text) {
  return Record(6, text) + Record(6, "") + Record(3, std::string(8, '\0'));
}

TEST_CASE("a request is answered, and the next one on its connection has another id") {
  Fixture f;
  const int peer = f.Connect();
  f.Send(peer, Request("GET"));
  REQUIRE(f.ids.size() == 1);
  CHECK(f.Respond(f.ids[0], "one"));
  CHECK(f.Receive(peer) == Framed("one"));
  f.Send(peer, Request("HEAD"));
  REQUIRE(f.ids.size() == 2);
  CHECK(f.ids[0] != f.ids[1]);
  CHECK((f.ids[0] & 0xFFFFFFFF) == (f.ids[1] & 0xFFFFFFFF));
  CHECK(f.methods == std::vector<std::string>{"GET", "HEAD"});

  // The first answer, once more and late: it reaches nobody.
  CHECK(f.Respond(f.ids[0], "the first user's"));
  CHECK(f.Receive(peer).empty());
  CHECK(f.Respond(f.ids[1], "two"));
  CHECK(f.Receive(peer) == Framed("two"));
}

TEST_CASE("an answer for a peer that has left does not reach who has its descriptor now") {
  Fixture f;
  const int peer = f.Connect();
  f.Send(peer, Request("GET"));
  const RequestId first = f.ids.at(0);
  const int other = f.Open();  // now, so that it does not take that descriptor itself
  shutdown(peer, SHUT_RDWR);
  f.Turn();
  CHECK(f.gone == std::vector<RequestId>{first});
  f.Connect(other);
  f.Send(other, Request("GET"));
  REQUIRE((f.ids.at(1) & 0xFFFFFFFF) == (first & 0xFFFFFFFF));
  CHECK(f.Respond(first, "the first user's"));
  CHECK(f.Receive(other).empty());
  CHECK(f.Respond(f.ids[1], "the other's"));
  CHECK(f.Receive(other) == Framed("the other's"));
}

TEST_CASE("a connection that is not to be kept closes after its answer") {
  Fixture f;
  const int peer = f.Connect();
  f.Send(peer, Request("GET", false));
  f.Respond(f.ids.at(0), "text");
  CHECK(f.Receive(peer) == Framed("text") + "closed");
  CHECK(f.fastcgi->connections() == 0);
}

TEST_CASE("a long answer leaves as the peer takes it, from its owner's memory or a copy") {
  for (const bool owned : {true, false}) {
    CAPTURE(owned);
    Fixture f;
    const int peer = f.Connect();
    f.Send(peer, Request("GET"));
    auto body = std::make_shared<const std::string>(5 * kMegabyte, 'b');
    const std::weak_ptr<const std::string> watched = body;
    CHECK(f.fastcgi->Respond(f.ids.at(0), "head", *body, owned ? body : nullptr, f.now));
    body.reset();
    CHECK(watched.expired() == !owned);
    CHECK(f.fastcgi->unsent() > 4 * kMegabyte);
    std::string received;
    while (f.fastcgi->is_sending()) received += f.Receive(peer);
    received += f.Receive(peer);
    CHECK(watched.expired());
    CHECK(received.size() == 4 + 5 * kMegabyte + 8 * 81 + 24);
    CHECK(received.substr(received.size() - 24) == Record(6, "") + Record(3, std::string(8, '\0')));
    f.Send(peer, Request("GET"));
    CHECK(f.ids.size() == 2);
  }
}

TEST_CASE("unsent answers have a budget, and short ones pass beyond it") {
  Fixture f;
  const auto body = std::make_shared<const std::string>(20 * kMegabyte, 'b');
  std::vector<int> peers;
  for (size_t i = 0; i < 4; ++i) {
    peers.push_back(f.Connect());
    f.Send(peers.back(), Request("GET"));
    CAPTURE(i);
    CHECK(f.fastcgi->Respond(f.ids.at(i), "head", *body, body, f.now) == (i < 3));
  }
  CHECK(f.fastcgi->unsent() <= FastCgi::kMaxUnsent);
  CHECK(f.Receive(peers[3]).empty());
  CHECK(f.Respond(f.ids.at(3), "short"));
  CHECK(f.Receive(peers[3]) == Framed("short"));
  // What a peer that leaves has not taken is room again.
  shutdown(peers[0], SHUT_RDWR);
  f.Turn();
  f.Send(peers[3], Request("GET"));
  CHECK(f.fastcgi->Respond(f.ids.at(4), "head", *body, body, f.now));
}

TEST_CASE("an answer longer than the budget passes alone") {
  Fixture f;
  const auto body = std::make_shared<const std::string>(FastCgi::kMaxUnsent + 1, 'b');
  const int peer = f.Connect();
  f.Send(peer, Request("GET"));
  CHECK(f.fastcgi->Respond(f.ids.at(0), "head", *body, body, f.now));
  const int other = f.Connect();
  f.Send(other, Request("GET"));
  CHECK_FALSE(f.fastcgi->Respond(f.ids.at(1), std::string(kMegabyte, 'b'), {}, nullptr, f.now));
  CHECK(f.Respond(f.ids.at(1), "short"));
}

TEST_CASE("a peer that takes nothing of its answer is disconnected") {
  Fixture f;
  const int peer = f.Connect();
  f.Send(peer, Request("GET"));
  f.Respond(f.ids.at(0), std::string(kMegabyte, 'b'));
  f.fastcgi->OnTime(f.now + FastCgi::kAnswerTimeout);
  CHECK(f.fastcgi->connections() == 1);
  f.fastcgi->OnTime(f.now + FastCgi::kAnswerTimeout + std::chrono::seconds(1));
  CHECK(f.fastcgi->connections() == 0);
  CHECK(f.fastcgi->unsent() == 0);
}

}  // namespace
}  // namespace keys
