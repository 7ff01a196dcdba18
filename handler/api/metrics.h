// Counters of the whole pool, in Prometheus' text format.
//
// All processes map one file and add to the same atomic counters, so a scrape of any process shows
// the sum, including that of processes that were replaced. The file's name is KEYS_METRICS_FILE and
// a hash of the layout: a version of the program that counts something else uses another file.
// A gauge describes a living process (its connections, its waiting requests). Each process holds a
// slot for its gauges by a lock on a byte of the file; the kernel releases the lock when the
// process dies. Without a file each process counts alone.
//
// Counting never fails and never blocks: relaxed atomic additions. While the file cannot be used,
// counts are lost (shared_file.h), and TakeProblem() says so.
// Source: prometheus.io, "Exposition formats", version 0.0.4; "Metric and label naming".
#ifndef HANDLER_API_METRICS_H_
#define HANDLER_API_METRICS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "handler/api/api_error.h"
#include "handler/base/shared_file.h"

namespace keys {

// Each counts for the whole pool and only grows. Names and meanings: kCounters in metrics.cc.
enum class Counter {
  kTokenCacheHits,
  kTokenCacheMisses,
  kOverLimitFromMemory,
  kDatabaseReconnects,
  kDatabaseFaults,
  kLookupRetries,
  kPoisonLookups,
  kClientsGone,
  kProtocolErrors,
  kKeyReloads,
  kKeyReloadFailures,
  kProcessStarts,
  kCount
};

// The state of this process now; a scrape shows the sum, the largest or the smallest of the pool's.
enum class Gauge {
  kDatabaseConnected,  // 0 or 1
  kCircuitOpen,        // 0 or 1
  kConnections,        // FastCGI connections that nginx keeps
  kRequestsWaiting,    // for a lookup that is not sent yet
  kLookupsWaiting,     // not sent yet
  kOldestWait,         // microseconds; 0 when nothing waits
  kKeySetConfirmed,    // Unix time in seconds; 0 without a JWK set file
  kResidentMemory,     // bytes
  kCount
};

enum class Histogram {
  kRequestDuration,   // microseconds
  kDatabaseWait,      // microseconds
  kStatementLookups,  // lookups per statement
  kCount
};

class Metrics {
 public:
  // An empty path: counters of this process alone.
  explicit Metrics(const std::string& path);
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void CountRequest(std::optional<ApiError> error, std::chrono::microseconds duration);
  void Add(Counter counter, int64_t count = 1);
  int64_t Total(Counter counter) const;  // of the whole pool
  void Set(Gauge gauge, int64_t value);
  // One of the rules that can refuse a request (RefusalRules in metrics.cc), as the log names it.
  void CountRefusal(std::string_view rule);
  // `value` is in the histogram's unit, 0 or more.
  void Observe(Histogram histogram, int64_t value);
  // Counts a 429: the window is "minute" or "day", the tier is known by its requests per minute.
  // Tiers beyond the table's size are counted together.
  void CountRateLimited(int32_t requests_per_minute, std::string_view window);

  void AppendText(std::string& out) const;

  // What has happened to the file since the last call; empty: nothing.
  std::string TakeProblem() { return file_.TakeProblem(); }
  // Writes it into the log.
  void LogProblem();

 private:
  struct Shared;
  class Text;
  void AppendGauges(Text& text) const;

  SharedFile file_;
  Shared* shared_;
  size_t slot_;
};

}  // namespace keys

#endif  // HANDLER_API_METRICS_H_
