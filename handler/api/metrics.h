// Counters of the whole pool, in Prometheus' text format.
//
// All processes map one file (KEYS_METRICS_FILE) and add to the same atomic counters, so a scrape
// of any process shows the sum, also of processes that were replaced. A version that counts
// something else begins a file of its own, while the processes that it replaces keep theirs. What
// is true only of a process that lives (its database connection) is in a slot that it holds by a
// lock on a byte of the file; the kernel lets go of it when the process dies. Without a file each
// process counts alone.
//
// Counting never fails and never blocks: relaxed atomic additions. The constructor throws
// std::runtime_error when the file cannot be used.
// Source: prometheus.io, "Exposition formats", version 0.0.4.
#ifndef HANDLER_API_METRICS_H_
#define HANDLER_API_METRICS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace keys {

enum class Counter {
  kTokenCacheHits,
  kTokenCacheMisses,
  kOverLimitFromMemory,
  kDatabaseReconnects,
  kDatabaseFaults,
  kClientsGone,
  kProtocolErrors,
  kKeyReloads,
  kKeyReloadFailures,
  kCounters
};

class Metrics {
 public:
  // An empty path: counters of this process alone.
  explicit Metrics(const std::string& path);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `code` is "ok" or an error's of api_error.h.
  void CountRequest(std::string_view code, std::chrono::microseconds duration);
  void Add(Counter counter, int64_t count = 1);
  void SetDatabaseConnected(bool connected);

  void AppendText(std::string& out) const;

 private:
  struct Shared;
  Shared* shared_;
  size_t slot_;
  int file_ = -1;
};

}  // namespace keys

#endif  // HANDLER_API_METRICS_H_
