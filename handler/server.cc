#include "handler/server.h"

#include <malloc.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "handler/api/list_keys.h"
#include "handler/api/metrics.h"
#include "handler/base/log.h"
#include "handler/base/notify.h"
#include "handler/base/unique_fd.h"
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
constexpr int kMaxEventsPerWait = 64;
constexpr int kMaxPolls = 4;                 // for more, before a turn's statement is sent
constexpr size_t kMaxKeptText = 256 * 1024;  // memory beyond this is given back after a response
constexpr size_t kTrimAfterClosed = 32;      // connections that have left since the last tick

// Bytes; 0 when /proc does not tell.
int64_t ResidentMemory() {
  std::ifstream statm("/proc/self/statm");  // proc(5)
  int64_t size = 0;
  int64_t resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

class Server {
 public:
  Server(const Config& config, KeyFiles& key_files, int listener)
      : key_files_(key_files),
        deadline_(config.deadline),
        epoll_(NeedFd(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
        metrics_(config.metrics_file),
        list_keys_(config, metrics_),
        signals_(NeedFd(TakeSignals(), "signalfd")),
        fastcgi_(
            listener, epoll_.get(), kListenerTag,
            {.request = [this](RequestId id, const Request& request) { OnRequest(id, request); },
             .gone = [this](RequestId id) { OnGone(id); }},
            metrics_),
        batcher_(
            {.url = config.database_url,
             .sql = ListKeysStatement(config.token.require_session),
             .deadline = config.deadline,
             .epoll = epoll_.get(),
             .tag = kDatabaseTag,
             .seed = std::random_device{}()},
            [this](std::span<const Waiter> waiters, const LookupResult& result) {
              OnResult(waiters, result);
            },
            Clock::now()) {
    std::signal(SIGPIPE, SIG_IGN);  // libfcgi has installed a handler of its own
    epoll_event event{.events = EPOLLIN, .data = {.u64 = kSignalTag}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, signals_.get(), &event);
    metrics_.Add(Counter::kProcessStarts);
  }

  int Run() {
    Log(Level::kInfo, "started", {{"pid", getpid()}});
    NotifyServiceManager("READY=1");
    Clock::time_point tick = Clock::now();
    while (!Drained()) {
      FlushLog();
      int count = DispatchEvents(MillisecondsUntil(std::min(batcher_.NextTime(), tick)));
      // What comes during a turn goes into its statement: fewer and larger ones.
      for (int polls = 0; count > 0 && polls < kMaxPolls; ++polls) count = DispatchEvents(0);
      const Clock::time_point now = Clock::now();
      CountLookups();
      ConnectAfterSibling(now);
      batcher_.OnTime(now);
      batcher_.Send(now);
      if (now >= tick) {
        tick = now + kTick;
        OnTick(now);
      }
    }
    ReportState(Clock::now());
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

  // Give a client that is still reading a long response kMaxSending more.
  bool Drained() const {
    if (!draining_) return false;
    if (fastcgi_.connections() == 0) return true;
    return Clock::now() >=
           drained_by_ + (fastcgi_.is_sending() ? kMaxSending : std::chrono::seconds(0));
  }

  // Waits up to `timeout` milliseconds for events and handles them. Returns their number.
  int DispatchEvents(int timeout) {
    std::array<epoll_event, kMaxEventsPerWait> events;
    const int count = epoll_wait(epoll_.get(), events.data(), kMaxEventsPerWait, timeout);
    const Clock::time_point now = Clock::now();
    // A full batch of events: the database's result first, because its requests are older.
    if (count == kMaxEventsPerWait && batcher_.connected()) batcher_.OnEvent(now);
    for (int i = 0; i < count; ++i) Dispatch(events[static_cast<size_t>(i)], now);
    return count;
  }

  void Dispatch(const epoll_event& event, Clock::time_point now) {
    switch (event.data.u64) {
      case kListenerTag:
        fastcgi_.Accept(now);
        break;
      case kDatabaseTag:
        batcher_.OnEvent(now);
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
    NotifyServiceManager("STOPPING=1");
    draining_ = true;
    drained_by_ = now + deadline_ + std::chrono::seconds(1);
    fastcgi_.Drain(now);
  }

  void OnTick(Clock::time_point now) {
    if (expects_watchdog_) NotifyServiceManager("WATCHDOG=1");
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
    ReportState(now);
    // Give the memory of a long list or of many connections back to the system.
    const size_t connections = fastcgi_.connections();
    if (sent_long_response_ || connections + kTrimAfterClosed <= connections_) malloc_trim(0);
    sent_long_response_ = false;
    connections_ = connections;
  }

  // The gauges of this process.
  void ReportState(Clock::time_point now) {
    const LookupQueue& queue = batcher_.queue();
    metrics_.Set(Gauge::kCircuitOpen, batcher_.circuit_is_open(now) ? 1 : 0);
    metrics_.Set(Gauge::kConnections, static_cast<int64_t>(fastcgi_.connections()));
    metrics_.Set(Gauge::kRequestsWaiting, static_cast<int64_t>(queue.requests()));
    metrics_.Set(Gauge::kLookupsWaiting, static_cast<int64_t>(queue.lookups()));
    const Clock::duration left = queue.empty() ? deadline_ : queue.NextDeadline() - now;
    metrics_.Set(Gauge::kOldestWait, Microseconds(std::max<Clock::duration>(deadline_ - left, {})));
    metrics_.Set(Gauge::kKeySetConfirmed, key_files_.confirmed_at());
    metrics_.Set(Gauge::kResidentMemory, ResidentMemory());
    metrics_.LogProblem();
    CountLookups();
  }

  // What the batcher has done since the last call.
  void CountLookups() {
    const LookupBatcher::Stats& stats = batcher_.stats();
    metrics_.Set(Gauge::kDatabaseConnected, batcher_.connected() ? 1 : 0);
    if (stats == counted_) return;
    metrics_.Add(Counter::kDatabaseReconnects, stats.connects - counted_.connects);
    metrics_.Add(Counter::kLookupRetries, stats.retries - counted_.retries);
    metrics_.Add(Counter::kPoisonLookups, stats.poison - counted_.poison);
    if (stats.statements > counted_.statements) {  // by one: a turn of the loop sends one at most
      metrics_.Observe(Histogram::kStatementLookups, stats.lookups - counted_.lookups);
    }
    counted_ = stats;
  }

  void OnRequest(RequestId id, const Request& request) {
    const Moment now = Moment::Now();
    response_.Clear();
    RequestContext& context = ContextOf(id);
    context.is_readiness_check = request.status_page == "readyz";
    if (context.is_readiness_check) {
      AssignRequestId(request, context.request_id);
      context.head_only = request.method == "HEAD";
      CheckReadiness(id, now);
    } else if (!request.status_page.empty()) {
      SendMetrics(id, request, now);
    } else if (list_keys_.Authorize(request, key_files_.keys(), now, context, response_)) {
      context.asked = Clock::now();
      batcher_.Submit(id, context.user, context.session, context.asked);
    } else {
      const Moment refused = Moment::Now();
      context.asked = context.answered = refused.steady;
      Send(id, context, refused);
    }
  }

  void OnResult(std::span<const Waiter> waiters, const LookupResult& result) {
    if (body_.use_count() > 1) body_ = std::make_shared<std::string>();  // a peer still takes it
    WriteListBody(result, *body_);
    const Moment now = Moment::Now();
    for (size_t position = 0; position < waiters.size(); ++position) {
      if (waiters[position].gone) continue;
      const RequestId id = waiters[position].request;
      RequestContext& context = ContextOf(id);
      response_.Clear();
      if (context.is_readiness_check) {
        SendReadiness(id, result.fault == DatabaseFault::kNone, now);
        continue;
      }
      list_keys_.Respond(result, position, *body_, now, context, response_);
      Send(id, context, now);
    }
    if (body_->capacity() > kMaxKeptText) {
      body_ = std::make_shared<std::string>();
      sent_long_response_ = true;
    }
  }

  // A process is ready when it has keys and the database answers a lookup of no user.
  void CheckReadiness(RequestId id, Moment now) {
    if (key_files_.keys().size() == 0 || batcher_.circuit_is_open(now.steady)) {
      SendReadiness(id, false, now);
    } else {
      batcher_.Submit(id, Uuid{}, Uuid{}, now.steady);
    }
  }

  void SendReadiness(RequestId id, bool is_ready, Moment now) {
    const RequestContext& context = ContextOf(id);
    if (is_ready) {
      response_.body = R"({"status":"ready"})";
    } else {
      RespondWithError(ApiError::kServiceUnavailable, context.request_id, nullptr, response_);
    }
    Write(id, context.request_id, context.head_only, now);
  }

  void SendMetrics(RequestId id, const Request& request, Moment now) {
    std::string& request_id = ContextOf(id).request_id;
    AssignRequestId(request, request_id);
    if (request.status_page == "metrics") {
      ReportState(now.steady);
      response_.content_type = "text/plain; version=0.0.4; charset=utf-8";
      metrics_.AppendText(response_.body);
    } else {
      RespondWithError(ApiError::kServiceUnavailable, request_id, nullptr, response_);
    }
    Write(id, request_id, request.method == "HEAD", now);
  }

  // When another process of the pool has connected, tries at once.
  void ConnectAfterSibling(Clock::time_point now) {
    const int64_t connects = metrics_.Total(Counter::kDatabaseReconnects);
    if (connects != pool_connects_ && !batcher_.connected()) batcher_.OnSiblingConnected(now);
    pool_connects_ = connects;
  }

  void OnGone(RequestId id) {
    batcher_.Cancel(id);
    Log(Level::kInfo, "client_gone", {{"id", ContextOf(id).request_id}});
  }

  // False: so many bytes of responses are unsent that this one is not taken.
  bool Write(RequestId id, std::string_view request_id, bool head_only, Moment now) {
    cgi_head_.clear();
    AppendCgiHead(response_, request_id, cgi_head_);
    return fastcgi_.Respond(id, cgi_head_, head_only ? std::string_view{} : response_.content(),
                            response_.list.empty() ? nullptr : body_, now.steady);
  }

  void Send(RequestId id, RequestContext& context, Moment now) {
    if (!Write(id, context.request_id, context.head_only, now)) {
      context.rule = "unsent_answers";
      response_.Clear();
      RespondWithError(ApiError::kServiceUnavailable, context.request_id, nullptr, response_);
      Write(id, context.request_id, context.head_only, now);
    }
    LogRequest(context, response_, now, metrics_);
  }

  // One per connection, which has one request at a time; the id names its descriptor.
  RequestContext& ContextOf(RequestId id) {
    const auto fd = static_cast<size_t>(id & 0xFFFFFFFF);
    if (contexts_.size() <= fd) contexts_.resize(fd + 1);
    return contexts_[fd];
  }

  KeyFiles& key_files_;
  std::chrono::milliseconds deadline_;
  UniqueFd epoll_;
  Metrics metrics_;
  ListKeys list_keys_;
  UniqueFd signals_;  // blocked before libfcgi installs handlers of its own: none is lost
  FastCgi fastcgi_;
  LookupBatcher batcher_;
  std::vector<RequestContext> contexts_;
  Response response_;
  std::string cgi_head_;
  // Of the list that was looked up last; shared with the connections whose peers have not taken it.
  std::shared_ptr<std::string> body_ = std::make_shared<std::string>();
  LookupBatcher::Stats counted_;     // in the metrics
  int64_t pool_connects_ = 0;        // of all processes
  bool sent_long_response_ = false;  // an answer since the last tick
  size_t connections_ = 0;           // at the last tick
  const bool expects_watchdog_ = ExpectsWatchdog();
  bool draining_ = false;
  Clock::time_point drained_by_{};
};

}  // namespace

int Serve(const Config& config, KeyFiles& key_files, int listener) {
  return Server(config, key_files, listener).Run();
}

}  // namespace keys
