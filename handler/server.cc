#include "handler/server.h"

#include <malloc.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <stdexcept>
#include <vector>

#include "handler/api/list_keys.h"
#include "handler/api/metrics.h"
#include "handler/base/log.h"
#include "handler/database/key_list.h"
#include "handler/database/lookup_batcher.h"
#include "handler/fastcgi/connection.h"

namespace keys {
namespace {

// What epoll's events belong to; any other tag is a FastCGI connection's.
constexpr uint64_t kListenerTag = 1;
constexpr uint64_t kDatabaseTag = 2;
constexpr uint64_t kSignalTag = 3;

constexpr std::chrono::seconds kTick{1};
// At the end of a process; with the deadline under the 90 s of tools/replace-pool and
// TimeoutStopSec=.
constexpr std::chrono::seconds kMaxSending{20};
constexpr int kEventsATurn = 64;
constexpr size_t kTrimAfterClosed = 32;  // connections that have left since the last tick

// Gives its memory back, which an assignment of an empty text does not.
void ReleaseMemory(std::string& text) {
  std::string().swap(text);
}

// Bytes; 0 when /proc does not tell.
int64_t ResidentMemory() {
  std::ifstream statm("/proc/self/statm");  // proc(5)
  int64_t size = 0;
  int64_t resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

void LogMetricsProblem(Metrics& metrics) {
  const std::string problem = metrics.TakeProblem();
  if (!problem.empty()) Log(Level::kWarning, "metrics_file", {{"problem", problem}});
}

class Descriptor {
 public:
  Descriptor(int fd, const char* what) : fd_(fd) {
    if (fd < 0) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class Server {
 public:
  Server(const Config& config, KeyFiles& key_files, int listener)
      : key_files_(key_files),
        deadline_(config.deadline),
        epoll_(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"),
        metrics_(config.metrics_file),
        list_keys_(config, metrics_),
        signals_(TakeSignals(), "signalfd"),
        fastcgi_(listener, epoll_.get(), kListenerTag,
                 {.request = [this](RequestId ticket,
                                    const Request& request) { OnRequest(ticket, request); },
                  .gone = [this](RequestId ticket) { OnGone(ticket); }},
                 metrics_),
        database_(config.database_url, ListKeysStatement(config.token.require_session),
                  config.deadline, epoll_.get(), kDatabaseTag,
                  [this](RequestId ticket, const Row* row, DatabaseFault fault,
                         std::string_view sqlstate) { OnAnswer(ticket, row, fault, sqlstate); }) {
    std::signal(SIGPIPE, SIG_IGN);  // libfcgi has installed a handler of its own
    epoll_event event{.events = EPOLLIN, .data = {.u64 = kSignalTag}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, signals_.get(), &event);
    metrics_.Add(Counter::kProcessStarts);
  }

  int Run() {
    Log(Level::kInfo, "started", {{"pid", getpid()}});
    Clock::time_point tick = Clock::now();
    while (!Drained()) {
      FlushLog();
      std::array<epoll_event, kEventsATurn> events;
      const Clock::time_point wake = std::min(database_.NextTime(), tick);
      const int count = epoll_wait(epoll_.get(), events.data(), kEventsATurn, Until(wake));
      const Clock::time_point now = Clock::now();
      for (int i = 0; i < count; ++i) Dispatch(events[static_cast<size_t>(i)], now);
      database_.OnTime(now);
      database_.Send(now);
      if (now >= tick) {
        tick = now + kTick;
        OnTick(now);
      }
    }
    ReportState();
    Log(Level::kInfo, "stopped", {{"pid", getpid()}});
    FlushLog();
    return 0;
  }

 private:
  static int TakeSignals() {
    sigset_t mask;
    sigemptyset(&mask);
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&mask, signal);
    sigprocmask(SIG_BLOCK, &mask, nullptr);
    return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  }

  // Milliseconds for epoll_wait, rounded up so that the moment has come when it returns.
  static int Until(Clock::time_point wake) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(wake - Clock::now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
  }

  // Who reads a long answer gets the time for it that they have at other times.
  bool Drained() const {
    if (!draining_ || fastcgi_.connections() == 0) return draining_;
    return Clock::now() >=
           drained_by_ + (fastcgi_.is_sending() ? kMaxSending : std::chrono::seconds(0));
  }

  void Dispatch(const epoll_event& event, Clock::time_point now) {
    switch (event.data.u64) {
      case kListenerTag:
        fastcgi_.Accept(now);
        break;
      case kDatabaseTag:
        database_.OnEvent(now);
        break;
      case kSignalTag:
        OnSignal(now);
        break;
      default:
        fastcgi_.OnEvent(event.data.u64, event.events, now);
        break;
    }
  }

  void OnSignal(Clock::time_point now) {
    signalfd_siginfo signal{};
    if (read(signals_.get(), &signal, sizeof signal) != sizeof signal || draining_) return;
    Log(Level::kInfo, "draining",
        {{"signal", static_cast<int64_t>(signal.ssi_signo)},
         {"connections", static_cast<int64_t>(fastcgi_.connections())}});
    draining_ = true;
    drained_by_ = now + deadline_ + std::chrono::seconds(1);
    fastcgi_.Drain(now);
  }

  void OnTick(Clock::time_point now) {
    fastcgi_.OnTime(now);
    switch (key_files_.Poll()) {
      case KeyFiles::Change::kNone:
        break;
      case KeyFiles::Change::kReplaced:
        metrics_.Add(Counter::kKeyReloads);
        break;
      case KeyFiles::Change::kBroken:
        metrics_.Add(Counter::kKeyReloadFailures);
        break;
    }
    ReportState();
    // The memory of a long list or of a crowd goes back to the system.
    const size_t connections = fastcgi_.connections();
    if (sent_long_response_ || connections + kTrimAfterClosed <= connections_) malloc_trim(0);
    sent_long_response_ = false;
    connections_ = connections;
  }

  // What the metrics say about this process now.
  void ReportState() {
    metrics_.Set(Gauge::kDatabaseConnected, database_.connected() ? 1 : 0);
    metrics_.Set(Gauge::kConnections, static_cast<int64_t>(fastcgi_.connections()));
    metrics_.Set(Gauge::kResidentMemory, ResidentMemory());
    LogMetricsProblem(metrics_);
    metrics_.Add(Counter::kDatabaseReconnects, database_.reconnects() - reconnects_);
    reconnects_ = database_.reconnects();
  }

  void OnRequest(RequestId ticket, const Request& request) {
    const Moment now = Moment::Now();
    response_.Clear();
    if (!request.status_page.empty()) {
      AnswerStatusPage(ticket, request, now);
      return;
    }
    RequestContext& context = ContextOf(ticket);
    OutliveOutOfMemory(ticket, context, [&] {
      if (list_keys_.Authorize(request, key_files_.keys(), now, context, response_)) {
        database_.Submit(ticket, context.user, context.session, context.asked);
      } else {
        Send(ticket, context, Moment::Now());
      }
    });
  }

  void OnAnswer(RequestId ticket, const Row* row, DatabaseFault fault, std::string_view sqlstate) {
    RequestContext& context = ContextOf(ticket);
    const Moment now = Moment::Now();
    response_.Clear();
    OutliveOutOfMemory(ticket, context, [&] {
      list_keys_.Respond(row, fault, sqlstate, now, context, response_);
      Send(ticket, context, now);
    });
  }

  // Of a list too long, say: the next request may fit again.
  template <typename Work>
  void OutliveOutOfMemory(RequestId ticket, const RequestContext& context, Work work) {
    try {
      work();
    } catch (const std::bad_alloc&) {
      Log(Level::kError, "out_of_memory", {{"id", context.request_id}});
      ReleaseMemory(response_.body);
      ReleaseMemory(cgi_response_);
      response_.Clear();
      RespondWithError(ApiError::kServiceUnavailable, context.request_id, nullptr, response_);
      Send(ticket, context, Moment::Now());
    }
  }

  void OnGone(RequestId ticket) {
    database_.Cancel(ticket);
    Log(Level::kInfo, "client_gone", {{"id", ContextOf(ticket).request_id}});
  }

  void Send(RequestId ticket, const RequestContext& context, Moment now) {
    cgi_response_.clear();
    AppendCgiResponse(response_, context.request_id, context.head_only, cgi_response_);
    fastcgi_.Respond(ticket, cgi_response_, now.steady);
    LogRequest(context, response_, now, metrics_);
    if (cgi_response_.capacity() > FastCgi::kMaxWrittenAtOnce * 4) {
      ReleaseMemory(cgi_response_);
      ReleaseMemory(response_.body);
      sent_long_response_ = true;
    }
  }

  // For load balancers and Prometheus; nginx alone asks for them.
  void AnswerStatusPage(RequestId ticket, const Request& request, Moment now) {
    const std::string id(request.request_id);
    if (request.status_page == "metrics") {
      ReportState();
      response_.content_type = "text/plain; version=0.0.4; charset=utf-8";
      metrics_.AppendText(response_.body);
    } else if (request.status_page == "readyz" && database_.connected() &&
               key_files_.keys().size() > 0) {
      response_.body = R"({"status":"ready"})";
    } else {
      RespondWithError(ApiError::kServiceUnavailable, id, nullptr, response_);
    }
    cgi_response_.clear();
    AppendCgiResponse(response_, id, request.method == "HEAD", cgi_response_);
    fastcgi_.Respond(ticket, cgi_response_, now.steady);
  }

  // One place a connection, named by the descriptor in its ticket.
  RequestContext& ContextOf(RequestId ticket) {
    const auto place = static_cast<size_t>(ticket & 0xFFFFFFFF);
    if (contexts_.size() <= place) contexts_.resize(place + 1);
    return contexts_[place];
  }

  KeyFiles& key_files_;
  std::chrono::milliseconds deadline_;
  Descriptor epoll_;
  Metrics metrics_;
  ListKeys list_keys_;
  Descriptor signals_;  // blocked before libfcgi installs handlers of its own: none is lost
  FastCgi fastcgi_;
  LookupBatcher database_;
  std::vector<RequestContext> contexts_;
  Response response_;
  std::string cgi_response_;
  int64_t reconnects_ = 0;
  bool sent_long_response_ = false;  // an answer since the last tick
  size_t connections_ = 0;           // at the last tick
  bool draining_ = false;
  Clock::time_point drained_by_{};
};

}  // namespace

int Serve(const Config& config, KeyFiles& key_files, int listener) {
  return Server(config, key_files, listener).Run();
}

int AnswerCgi(const Config& config, KeyFiles& key_files) {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string_view{} : std::string_view(value);
  };
  const Request request{.method = variable("REQUEST_METHOD"),
                        .cookie = variable("HTTP_COOKIE"),
                        .sec_fetch_site = variable("HTTP_SEC_FETCH_SITE"),
                        .request_id = variable("REQUEST_ID"),
                        .has_api_key = !variable("KEYS_API_KEY_SIGN").empty(),
                        .status_page = {}};
  Metrics metrics(config.metrics_file);
  LogMetricsProblem(metrics);
  ListKeys list_keys(config, metrics);
  RequestContext context;
  Response response;
  if (list_keys.Authorize(request, key_files.keys(), Moment::Now(), context, response)) {
    bool answered = false;
    const Descriptor epoll(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    LookupBatcher database(
        config.database_url, ListKeysStatement(config.token.require_session), config.deadline,
        epoll.get(), kDatabaseTag,
        [&](RequestId, const Row* row, DatabaseFault fault, std::string_view sqlstate) {
          list_keys.Respond(row, fault, sqlstate, Moment::Now(), context, response);
          answered = true;
        });
    database.Submit(0, context.user, context.session, Clock::now());
    while (!answered) {
      database.Send(Clock::now());
      epoll_event event{};
      if (epoll_wait(epoll.get(), &event, 1, 10) > 0) database.OnEvent(Clock::now());
      database.OnTime(Clock::now());
    }
  }
  LogRequest(context, response, Moment::Now(), metrics);
  std::string out;
  AppendCgiResponse(response, context.request_id, context.head_only, out);
  const bool written =
      std::fwrite(out.data(), 1, out.size(), stdout) == out.size() && std::fflush(stdout) == 0;
  FlushLog();
  return written ? 0 : 1;
}

}  // namespace keys
