#include "handler/api/metrics.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <span>

#include "handler/auth/token_refusal.h"
#include "handler/base/log.h"
#include "handler/base/text.h"
#include "version.h"

namespace keys {
namespace {

struct CounterRow {
  std::string_view name;
  std::string_view help;
};
constexpr CounterRow kCounters[] = {
    {"keys_token_cache_hits_total", "Tokens whose signature was remembered."},
    {"keys_token_cache_misses_total", "Tokens whose signature had to be verified."},
    {"keys_over_limit_from_memory_total", "429 answered without asking the database."},
    {"keys_database_reconnects_total", "Connections to PostgreSQL made."},
    {"keys_database_faults_total", "Requests that PostgreSQL did not answer with rows."},
    {"keys_lookup_retries_total", "Lookups sent again after an error."},
    {"keys_poison_lookups_total", "Lookups that ended the connection even when sent alone."},
    {"keys_clients_gone_total", "Requests whose client left before the answer."},
    {"keys_protocol_errors_total", "FastCGI connections closed for what they sent."},
    {"keys_key_reloads_total", "Changed key files that were taken into use."},
    {"keys_key_reload_failures_total", "Changed key files that were refused."},
    {"keys_process_starts_total", "Processes of the pool that were started."},
};
static_assert(std::size(kCounters) == static_cast<size_t>(Counter::kCount));

enum class Over { kSum, kLargest, kSmallest };  // of the living processes; kSmallest ignores 0
struct GaugeRow {
  Gauge gauge;
  Over over;
  int64_t unit;  // the value that is exported as 1
  std::string_view name;
  std::string_view help;
};
constexpr int64_t kMicroseconds = 1000000;
constexpr GaugeRow kGauges[] = {
    {Gauge::kDatabaseConnected, Over::kSum, 1, "keys_database_connected",
     "Processes whose connection to PostgreSQL is ready."},
    {Gauge::kCircuitOpen, Over::kSum, 1, "keys_circuit_open",
     "Processes that answer 503 at once because the database is away."},
    {Gauge::kConnections, Over::kSum, 1, "keys_connections",
     "FastCGI connections that are open, idle ones included."},
    {Gauge::kRequestsWaiting, Over::kSum, 1, "keys_requests_waiting",
     "Requests whose lookup waits to be sent to the database."},
    {Gauge::kLookupsWaiting, Over::kSum, 1, "keys_lookups_waiting",
     "Lookups that wait to be sent to the database."},
    {Gauge::kOldestWait, Over::kLargest, kMicroseconds, "keys_oldest_wait_seconds",
     "Time that the oldest of the requests that wait has waited."},
    {Gauge::kKeySetConfirmed, Over::kSmallest, 1, "keys_key_set_confirmed_timestamp_seconds",
     "Unix time at which the JWK set in use was last written or confirmed."},
    {Gauge::kResidentMemory, Over::kSum, 1, "keys_resident_memory_bytes",
     "Resident memory of all processes of the pool."},
    {Gauge::kResidentMemory, Over::kLargest, 1, "keys_largest_resident_memory_bytes",
     "Resident memory of the largest process of the pool."},
};
constexpr size_t kGaugeCount = static_cast<size_t>(Gauge::kCount);

constexpr int64_t kDurationBounds[] = {250,   500,   1000,   2500,   5000,    10000,
                                       25000, 50000, 100000, 250000, 1000000, 2500000};
constexpr int64_t kLookupBounds[] = {1, 2, 4, 8, 16, 32, 64};
struct HistogramRow {
  std::span<const int64_t> bounds;
  int64_t unit;
  std::string_view name;
  std::string_view help;
};
constexpr HistogramRow kHistograms[] = {
    {kDurationBounds, kMicroseconds, "keys_request_duration_seconds",
     "Time from a request's last byte to its answer."},
    {kDurationBounds, kMicroseconds, "keys_database_wait_seconds",
     "Time that a request waited for the database, queue included."},
    {kLookupBounds, 1, "keys_statement_lookups", "Lookups sent per statement."},
};
static_assert(std::size(kHistograms) == static_cast<size_t>(Histogram::kCount));
constexpr size_t kMaxBuckets = std::size(kDurationBounds) + 1;

// Rules that do not refuse a token; list_keys.cc and error_policy.cc use these names. The last one
// counts rules that are missing here.
constexpr std::string_view kOtherRules[] = {"method",
                                            "cross_site",
                                            "api_key_without_cookie",
                                            "session_not_live",
                                            "session_not_live_remembered",
                                            "over_limit",
                                            "over_limit_remembered",
                                            "text_not_utf8",
                                            "list_of_another_user",
                                            "unsent_answers",
                                            "unavailable",
                                            "timeout",
                                            "internal",
                                            "other"};
constexpr size_t kRules = kTokenRefusals + std::size(kOtherRules);

std::string_view RuleName(size_t rule) {
  return rule < kTokenRefusals ? Describe(static_cast<TokenRefusal>(rule))
                               : kOtherRules[rule - kTokenRefusals];
}

constexpr std::string_view kWindows[] = {"minute", "day"};
constexpr size_t kTiers = 8;    // that have counters of their own
constexpr size_t kSlots = 256;  // processes that can hold gauges at once

using Cell = std::atomic<int64_t>;
static_assert(Cell::is_always_lock_free);

void Increase(Cell& cell, int64_t by) {
  cell.fetch_add(by, std::memory_order_relaxed);
}
int64_t Read(const Cell& cell) {
  return cell.load(std::memory_order_relaxed);
}

}  // namespace

// A new file is all zeros, which is a valid start for every member.
struct Metrics::Shared {
  struct HistogramCells {
    std::array<Cell, kMaxBuckets> buckets;  // not cumulative here
    Cell sum;
  };
  struct Tier {
    Cell requests_per_minute;  // 0: free
    std::array<Cell, std::size(kWindows)> refused;
  };
  std::array<Cell, 1 + static_cast<size_t>(ApiError::kCount)> requests;  // the first one: 200
  std::array<HistogramCells, std::size(kHistograms)> histograms;
  std::array<Cell, std::size(kCounters)> counters;
  std::array<Cell, kRules> refusals;
  std::array<Tier, kTiers + 1> tiers;  // the last one: all others
  std::array<std::array<Cell, kGaugeCount>, kSlots> gauges;
};

namespace {

// The suffix of the file's name: a hash (FNV-1a) of Shared's size and of the names of its members,
// in their order.
std::string LayoutSuffix(size_t size) {
  uint64_t hash = 0xcbf29ce484222325 ^ size;
  const auto mix = [&](std::string_view name) {
    for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
    hash *= 0x100000001b3;  // like a zero byte, which separates the names
  };
  for (const ApiErrorRow& error : ApiErrors()) mix(error.code);
  for (const HistogramRow& row : kHistograms) {
    mix(row.name);
    for (const int64_t bound : row.bounds) mix(std::to_string(bound));
  }
  for (const CounterRow& row : kCounters) mix(row.name);
  for (size_t rule = 0; rule < kRules; ++rule) mix(RuleName(rule));
  for (const GaugeRow& row : kGauges) mix(row.name);
  std::string suffix = "-";
  AppendHex(suffix, hash);
  return suffix;
}

// Takes or tests an open file description lock (fcntl(2)) on the slot's byte. True: it was free.
bool LockSlot(int file, size_t slot, int command) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(slot);
  lock.l_len = 1;
  if (fcntl(file, command, &lock) != 0) return false;
  return command == F_OFD_SETLK || lock.l_type == F_UNLCK;
}

}  // namespace

Metrics::Metrics(const std::string& path)
    : file_(path.empty() ? path : path + LayoutSuffix(sizeof(Shared)), sizeof(Shared)),
      shared_(static_cast<Shared*>(file_.data())),
      slot_(0) {
  if (file_.file() >= 0) {
    while (slot_ < kSlots && !LockSlot(file_.file(), slot_, F_OFD_SETLK)) ++slot_;
  }
  for (size_t gauge = 0; gauge < kGaugeCount; ++gauge) Set(static_cast<Gauge>(gauge), 0);
}

void Metrics::CountRequest(std::optional<ApiError> error, std::chrono::microseconds duration) {
  Increase(shared_->requests[error ? 1 + static_cast<size_t>(*error) : 0], 1);
  Observe(Histogram::kRequestDuration, duration.count());
}

void Metrics::Add(Counter counter, int64_t count) {
  Increase(shared_->counters[static_cast<size_t>(counter)], count);
}

void Metrics::Set(Gauge gauge, int64_t value) {
  if (slot_ < kSlots) shared_->gauges[slot_][static_cast<size_t>(gauge)].store(value);
}

int64_t Metrics::Total(Counter counter) const {
  return Read(shared_->counters[static_cast<size_t>(counter)]);
}

void Metrics::Observe(Histogram histogram, int64_t value) {
  const std::span<const int64_t> bounds = kHistograms[static_cast<size_t>(histogram)].bounds;
  Shared::HistogramCells& cells = shared_->histograms[static_cast<size_t>(histogram)];
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  Increase(cells.buckets[static_cast<size_t>(bucket)], 1);
  Increase(cells.sum, value);
}

void Metrics::CountRefusal(std::string_view rule) {
  size_t found = 0;
  while (found + 1 < kRules && RuleName(found) != rule) ++found;
  Increase(shared_->refusals[found], 1);
}

void Metrics::CountRateLimited(int32_t requests_per_minute, std::string_view window) {
  size_t tier = 0;
  for (; tier < kTiers; ++tier) {
    int64_t taken = 0;
    Cell& owner = shared_->tiers[tier].requests_per_minute;
    if (owner.compare_exchange_strong(taken, requests_per_minute) || taken == requests_per_minute) {
      break;
    }
  }
  const auto* const found = std::find(std::begin(kWindows), std::end(kWindows) - 1, window);
  Increase(shared_->tiers[tier].refused[static_cast<size_t>(found - kWindows)], 1);
}

// Writes samples: `name{labels} value`.
class Metrics::Text {
 public:
  explicit Text(std::string& out) : out_(out) {}

  void Head(std::string_view name, std::string_view help, std::string_view type) {
    out_.append("# HELP ").append(name).append(" ").append(help);
    out_.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
  }

  // `labels` with their braces, or empty. `unit` as in the tables.
  void Sample(std::string_view name, std::string_view suffix, std::string_view labels,
              int64_t value, int64_t unit = 1) {
    out_.append(name).append(suffix).append(labels).append(" ");
    out_.append(Decimal(value, unit)).append("\n");
  }

  void WriteHistogram(const HistogramRow& row, const Shared::HistogramCells& cells) {
    Head(row.name, row.help, "histogram");
    int64_t total = 0;
    for (size_t i = 0; i < row.bounds.size(); ++i) {
      total += Read(cells.buckets[i]);
      Sample(row.name, "_bucket", "{le=\"" + Decimal(row.bounds[i], row.unit) + "\"}", total);
    }
    total += Read(cells.buckets[row.bounds.size()]);
    Sample(row.name, "_bucket", "{le=\"+Inf\"}", total);
    Sample(row.name, "_sum", "", Read(cells.sum), row.unit);
    Sample(row.name, "_count", "", total);
  }

  void WriteTier(const std::string& requests_per_minute, const Shared::Tier& tier) {
    for (size_t window = 0; window < std::size(kWindows); ++window) {
      std::string labels = "{requests_per_minute=\"" + requests_per_minute + "\",window=\"";
      labels.append(kWindows[window]).append("\"}");
      Sample("keys_rate_limited_total", "", labels, Read(tier.refused[window]));
    }
  }

 private:
  // Exact, without an exponent and without trailing zeros; `unit` is a power of ten.
  static std::string Decimal(int64_t value, int64_t unit) {
    std::string text = std::to_string(value / unit);
    if (value % unit == 0) return text;
    text += '.';
    text.append(std::to_string(unit + value % unit), 1);
    text.erase(text.find_last_not_of('0') + 1);
    return text;
  }

  std::string& out_;
};

void Metrics::AppendText(std::string& out) const {
  Text text(out);
  text.Head("keys_requests_total", "Requests answered, by status and error code.", "counter");
  text.Sample("keys_requests_total", "", R"({status="200",code="ok"})", Read(shared_->requests[0]));
  for (size_t i = 0; i < ApiErrors().size(); ++i) {
    std::string labels = "{status=\"" + std::to_string(ApiErrors()[i].status) + "\",code=\"";
    labels.append(ApiErrors()[i].code).append("\"}");
    text.Sample("keys_requests_total", "", labels, Read(shared_->requests[1 + i]));
  }
  for (size_t i = 0; i < std::size(kHistograms); ++i) {
    text.WriteHistogram(kHistograms[i], shared_->histograms[i]);
  }
  for (size_t i = 0; i < std::size(kCounters); ++i) {
    text.Head(kCounters[i].name, kCounters[i].help, "counter");
    text.Sample(kCounters[i].name, "", "", Read(shared_->counters[i]));
  }
  text.Head("keys_refusals_total", "Requests refused, by rule as in the log.", "counter");
  for (size_t rule = 0; rule < kRules; ++rule) {
    std::string labels = "{rule=\"";
    labels.append(RuleName(rule)).append("\"}");
    text.Sample("keys_refusals_total", "", labels, Read(shared_->refusals[rule]));
  }
  text.Head("keys_rate_limited_total",
            "429 answered, by the tier's requests per minute and the window that was exhausted.",
            "counter");
  for (size_t i = 0; i < kTiers; ++i) {
    const int64_t limit = Read(shared_->tiers[i].requests_per_minute);
    if (limit != 0) text.WriteTier(std::to_string(limit), shared_->tiers[i]);
  }
  text.WriteTier("other", shared_->tiers[kTiers]);
  AppendGauges(text);
  text.Head("keys_build_info", "The version of the program, as a label.", "gauge");
  text.Sample("keys_build_info", "", std::string("{version=\"") + kVersion + "\"}", 1);
}

void Metrics::AppendGauges(Text& text) const {
  std::array<size_t, kSlots> alive;
  size_t processes = 0;
  for (size_t slot = 0; slot < kSlots; ++slot) {
    const bool others = file_.file() >= 0 && !LockSlot(file_.file(), slot, F_OFD_GETLK);
    if (slot == slot_ || others) alive[processes++] = slot;
  }
  text.Head("keys_processes", "Processes of the pool that live.", "gauge");
  text.Sample("keys_processes", "", "", static_cast<int64_t>(processes));
  for (const GaugeRow& row : kGauges) {
    int64_t value = 0;
    for (const size_t slot : std::span(alive).first(processes)) {
      const int64_t one = Read(shared_->gauges[slot][static_cast<size_t>(row.gauge)]);
      if (row.over == Over::kSum) value += one;
      if (row.over == Over::kLargest) value = std::max(value, one);
      if (row.over == Over::kSmallest && one != 0) value = value == 0 ? one : std::min(value, one);
    }
    if (row.over == Over::kSmallest && value == 0) continue;  // no process has a value
    text.Head(row.name, row.help, "gauge");
    text.Sample(row.name, "", "", value, row.unit);
  }
}

void Metrics::LogProblem() {
  const std::string problem = TakeProblem();
  if (!problem.empty()) Log(Level::kWarning, "metrics_file", {{"problem", problem}});
}

}  // namespace keys
