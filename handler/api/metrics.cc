#include "handler/api/metrics.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <span>
#include <stdexcept>

#include "handler/api/api_error.h"

namespace keys {
namespace {

// Place 0 is for 200, place 1 + i for the error i of the contract's table.
constexpr size_t kOutcomes = 1 + 8;

struct Description {
  std::string_view name;
  std::string_view help;
};
constexpr Description kDescriptions[] = {
    {"keys_token_cache_hits_total", "Tokens whose signature was remembered."},
    {"keys_token_cache_misses_total", "Tokens whose signature had to be verified."},
    {"keys_over_limit_from_memory_total", "429 answered without asking the database."},
    {"keys_database_reconnects_total", "Connections to PostgreSQL made."},
    {"keys_database_faults_total", "Lookups that PostgreSQL did not answer with rows."},
    {"keys_clients_gone_total", "Requests whose client left before the answer."},
    {"keys_protocol_errors_total", "FastCGI connections closed for what they sent."},
    {"keys_key_reloads_total", "Changed key files that were taken into use."},
    {"keys_key_reload_failures_total", "Changed key files that were refused."},
};
static_assert(std::size(kDescriptions) == static_cast<size_t>(Counter::kCounters));

constexpr std::array<int64_t, 12> kBucketsUs = {250,   500,   1000,   2500,   5000,    10000,
                                                25000, 50000, 100000, 250000, 1000000, 2500000};
constexpr std::array<std::string_view, 12> kBucketNames = {"0.00025", "0.0005", "0.001", "0.0025",
                                                           "0.005",   "0.01",   "0.025", "0.05",
                                                           "0.1",     "0.25",   "1",     "2.5"};
constexpr size_t kSlots = 256;  // processes that can hold a gauge at once

using Cell = std::atomic<int64_t>;
static_assert(Cell::is_always_lock_free);

void Increase(Cell& cell, int64_t by) {
  cell.fetch_add(by, std::memory_order_relaxed);
}
int64_t Read(const Cell& cell) {
  return cell.load(std::memory_order_relaxed);
}

}  // namespace

struct Metrics::Shared {
  uint64_t layout;
  std::array<Cell, kOutcomes> requests;
  std::array<Cell, kBucketsUs.size() + 1> buckets;  // not cumulative here
  Cell duration_us;
  std::array<Cell, static_cast<size_t>(Counter::kCounters)> counters;
  std::array<Cell, kSlots> database_connected;
};

namespace {

// What stands for what in Shared, as a number: FNV-1a over its size and the names, in their order.
uint64_t Layout(size_t size) {
  uint64_t hash = 0xcbf29ce484222325 ^ size;
  const auto mix = [&](std::string_view name) {
    for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
    hash *= 0x100000001b3;  // as a zero byte: names do not run into each other
  };
  for (const ApiErrorRow& error : ApiErrors()) mix(error.code);
  for (const std::string_view bucket : kBucketNames) mix(bucket);
  for (const Description& counter : kDescriptions) mix(counter.name);
  return hash;
}

// The pool's file, of our layout; -1 and errno. One of another layout, of a version that is being
// replaced, is exchanged for a new one and never changed: its processes go on counting in theirs.
int OpenFile(const std::string& path, size_t size) {
  const uint64_t ours = Layout(size);
  while (true) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (file < 0) return -1;
    struct stat opened {};
    struct stat named {};
    // Locked, so that of several that start at once one exchanges the file.
    bool good = fstat(file, &opened) == 0 && S_ISREG(opened.st_mode) && flock(file, LOCK_EX) == 0;
    if (good && stat(path.c_str(), &named) == 0 && named.st_ino == opened.st_ino) {
      uint64_t layout = 0;
      if (pread(file, &layout, sizeof layout, 0) == 0) {
        good = ftruncate(file, static_cast<off_t>(size)) == 0 &&
               pwrite(file, &ours, sizeof ours, 0) == sizeof ours;
        layout = ours;
      }
      if (good && layout == ours) {
        flock(file, LOCK_UN);
        return file;
      }
      good = good && unlink(path.c_str()) == 0;
    }
    const int error = errno;
    close(file);
    errno = error;
    if (!good) return -1;
  }
}

// An open file description lock (fcntl(2)) on the slot's byte. Tells whether it was free.
bool LockSlot(int file, size_t slot, int command) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(slot);
  lock.l_len = 1;
  if (fcntl(file, command, &lock) != 0) return false;
  return command == F_OFD_SETLK || lock.l_type == F_UNLCK;
}

}  // namespace

Metrics::Metrics(const std::string& path) : slot_(kSlots) {
  if (!path.empty()) {
    file_ = OpenFile(path, sizeof(Shared));
    if (file_ < 0)
      throw std::runtime_error("KEYS_METRICS_FILE " + path + ": " + std::strerror(errno));
  }
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                            file_ < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file_, 0);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("KEYS_METRICS_FILE " + path + ": " + std::strerror(errno));
  }
  shared_ = static_cast<Shared*>(memory);  // all zeros when new
  for (size_t slot = 0; slot < kSlots && slot_ == kSlots; ++slot) {
    if (file_ < 0 || LockSlot(file_, slot, F_OFD_SETLK)) slot_ = slot;
  }
  if (ApiErrors().size() + 1 != kOutcomes) throw std::logic_error("metrics: kOutcomes");
  SetDatabaseConnected(false);
}

Metrics::~Metrics() {
  SetDatabaseConnected(false);
  munmap(shared_, sizeof(Shared));
  if (file_ >= 0) close(file_);
}

void Metrics::CountRequest(std::string_view code, std::chrono::microseconds duration) {
  const std::span<const ApiErrorRow> errors = ApiErrors();
  size_t outcome = 0;
  if (code != "ok") {
    while (outcome < errors.size() && errors[outcome].code != code) ++outcome;
    outcome = std::min(outcome, errors.size() - 1) + 1;
  }
  size_t bucket = 0;
  while (bucket < kBucketsUs.size() && duration.count() > kBucketsUs[bucket]) ++bucket;
  Increase(shared_->requests[outcome], 1);
  Increase(shared_->buckets[bucket], 1);
  Increase(shared_->duration_us, duration.count());
}

void Metrics::Add(Counter counter, int64_t count) {
  Increase(shared_->counters[static_cast<size_t>(counter)], count);
}

void Metrics::SetDatabaseConnected(bool connected) {
  if (slot_ < kSlots) shared_->database_connected[slot_].store(connected ? 1 : 0);
}

void Metrics::AppendText(std::string& out) const {
  const auto number = [&](int64_t value) {
    char digits[24];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    out += '\n';
  };
  const auto head = [&](std::string_view name, std::string_view help, std::string_view type) {
    out.append("# HELP ").append(name).append(" ").append(help);
    out.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
  };

  head("keys_requests_total", "Requests answered, by status and error code.", "counter");
  for (size_t i = 0; i < kOutcomes; ++i) {
    const bool ok = i == 0;
    out.append("keys_requests_total{status=\"");
    out.append(std::to_string(ok ? 200 : ApiErrors()[i - 1].status)).append("\",code=\"");
    out.append(ok ? "ok" : ApiErrors()[i - 1].code).append("\"} ");
    number(Read(shared_->requests[i]));
  }
  head("keys_request_duration_seconds", "From a request's last byte to its answer.", "histogram");
  int64_t total = 0;
  for (size_t i = 0; i < kBucketsUs.size(); ++i) {
    total += Read(shared_->buckets[i]);
    out.append("keys_request_duration_seconds_bucket{le=\"").append(kBucketNames[i]).append("\"} ");
    number(total);
  }
  total += Read(shared_->buckets.back());
  out += "keys_request_duration_seconds_bucket{le=\"+Inf\"} ";
  number(total);
  out += "keys_request_duration_seconds_sum ";
  const int64_t sum = Read(shared_->duration_us);
  const std::string fraction = std::to_string(1000000 + sum % 1000000);
  out.append(std::to_string(sum / 1000000)).append(".").append(fraction, 1).append("\n");
  out += "keys_request_duration_seconds_count ";
  number(total);
  for (size_t i = 0; i < std::size(kDescriptions); ++i) {
    head(kDescriptions[i].name, kDescriptions[i].help, "counter");
    out.append(kDescriptions[i].name).append(" ");
    number(Read(shared_->counters[i]));
  }

  int64_t processes = 0;
  int64_t connected = 0;
  for (size_t slot = 0; slot < kSlots; ++slot) {
    const bool alive = slot == slot_ || (file_ >= 0 && !LockSlot(file_, slot, F_OFD_GETLK));
    if (!alive) continue;
    ++processes;
    connected += Read(shared_->database_connected[slot]);
  }
  head("keys_processes", "Processes of the pool that live.", "gauge");
  out += "keys_processes ";
  number(processes);
  head("keys_database_connected", "Processes whose connection to PostgreSQL is ready.", "gauge");
  out += "keys_database_connected ";
  number(connected);
}

}  // namespace keys
