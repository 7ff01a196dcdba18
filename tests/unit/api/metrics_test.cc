#include "handler/api/metrics.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "handler/database/error_policy.h"

namespace keys {
namespace {

// A path whose files, with any suffix, are gone at the end of the test.
class TemporaryFile {
 public:
  TemporaryFile() { close(mkstemp(path_)); }
  ~TemporaryFile() {
    for (const auto& entry : std::filesystem::directory_iterator("/tmp")) {
      if (entry.path().string().starts_with(path_)) std::filesystem::remove(entry.path());
    }
  }
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/keys-metrics-XXXXXX";
};

std::string TextOf(const Metrics& metrics) {
  std::string text;
  metrics.AppendText(text);
  return text;
}

bool Has(const std::string& text, const std::string& line) {
  return text.find("\n" + line + "\n") != std::string::npos;
}

TEST_CASE("requests are counted by status and code, and by duration") {
  Metrics metrics("");
  metrics.CountRequest(std::nullopt, std::chrono::microseconds(300));
  metrics.CountRequest(std::nullopt, std::chrono::microseconds(250));
  metrics.CountRequest(ApiError::kExpiredSession, std::chrono::microseconds(3000000));
  const std::string text = TextOf(metrics);
  CHECK(Has(text, "keys_requests_total{status=\"200\",code=\"ok\"} 2"));
  CHECK(Has(text, "keys_requests_total{status=\"401\",code=\"expired_session\"} 1"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"0.00025\"} 1"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"2.5\"} 2"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"+Inf\"} 3"));
  CHECK(Has(text, "keys_request_duration_seconds_sum 3.00055"));
}

TEST_CASE("processes of a pool add up, and the counts of one that is gone stay") {
  const TemporaryFile file;
  Metrics here(file.path());
  here.Add(Counter::kKeyReloads);
  here.Set(Gauge::kDatabaseConnected, 1);
  const pid_t child = fork();
  if (child == 0) {
    Metrics there(file.path());
    there.Add(Counter::kKeyReloads, 2);
    there.Set(Gauge::kDatabaseConnected, 1);
    const std::string text = TextOf(there);
    _exit(Has(text, "keys_key_reloads_total 3") && Has(text, "keys_processes 2") &&
                  Has(text, "keys_database_connected 2")
              ? 0
              : 1);  // as kill -9 would: nothing is tidied up
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  const std::string text = TextOf(here);
  CHECK(Has(text, "keys_key_reloads_total 3"));
  CHECK(Has(text, "keys_processes 1"));
  CHECK(Has(text, "keys_database_connected 1"));
}

TEST_CASE("gauges are the sum, the largest or the smallest of the living processes") {
  const TemporaryFile file;
  Metrics one(file.path());
  one.Set(Gauge::kLookupsWaiting, 3);
  one.Set(Gauge::kOldestWait, 1500);
  CHECK(TextOf(one).find("keys_key_set_confirmed_timestamp_seconds") == std::string::npos);
  one.Set(Gauge::kKeySetConfirmed, 1700000000);
  {
    Metrics two(file.path());
    two.Set(Gauge::kLookupsWaiting, 4);
    two.Set(Gauge::kOldestWait, 2000000);
    const std::string text = TextOf(one);
    CHECK(Has(text, "keys_processes 2"));
    CHECK(Has(text, "keys_lookups_waiting 7"));
    CHECK(Has(text, "keys_oldest_wait_seconds 2"));
    CHECK(Has(text, "keys_key_set_confirmed_timestamp_seconds 1700000000"));
    two.Set(Gauge::kKeySetConfirmed, 1600000000);
    CHECK(Has(TextOf(one), "keys_key_set_confirmed_timestamp_seconds 1600000000"));
  }
  CHECK(Has(TextOf(one), "keys_lookups_waiting 3"));
  CHECK(Has(TextOf(one), "keys_oldest_wait_seconds 0.0015"));
  const Metrics three(file.path());
  CHECK(Has(TextOf(one), "keys_lookups_waiting 3"));  // a new process begins at 0
}

TEST_CASE("lookups per statement: a bound belongs to its bucket") {
  Metrics metrics("");
  for (const int64_t lookups : {1, 2, 3, 64, 65}) {
    metrics.Observe(Histogram::kStatementLookups, lookups);
  }
  const std::string text = TextOf(metrics);
  CHECK(Has(text, "keys_statement_lookups_bucket{le=\"1\"} 1"));
  CHECK(Has(text, "keys_statement_lookups_bucket{le=\"2\"} 2"));
  CHECK(Has(text, "keys_statement_lookups_bucket{le=\"4\"} 3"));
  CHECK(Has(text, "keys_statement_lookups_bucket{le=\"64\"} 4"));
  CHECK(Has(text, "keys_statement_lookups_bucket{le=\"+Inf\"} 5"));
  CHECK(Has(text, "keys_statement_lookups_sum 135"));
}

TEST_CASE("429 by tier: eight tiers are told apart, more are counted together") {
  Metrics metrics("");
  CHECK(Has(TextOf(metrics),
            "keys_rate_limited_total{requests_per_minute=\"other\",window=\"day\"} 0"));
  for (int tier = 1; tier <= 10; ++tier) metrics.CountRateLimited(10 * tier, "minute");
  metrics.CountRateLimited(80, "day");
  const std::string text = TextOf(metrics);
  CHECK(Has(text, "keys_rate_limited_total{requests_per_minute=\"10\",window=\"minute\"} 1"));
  CHECK(Has(text, "keys_rate_limited_total{requests_per_minute=\"80\",window=\"minute\"} 1"));
  CHECK(Has(text, "keys_rate_limited_total{requests_per_minute=\"80\",window=\"day\"} 1"));
  CHECK(Has(text, "keys_rate_limited_total{requests_per_minute=\"other\",window=\"minute\"} 2"));
  CHECK(text.find("\"90\"") == std::string::npos);
}

TEST_CASE("refusals by rule: each rule that the log can name, and one for what is forgotten") {
  Metrics metrics("");
  for (const char* rule : {"no_cookie", "expired", "method", "cross_site", "api_key_without_cookie",
                           "session_not_live", "session_not_live_remembered", "over_limit",
                           "over_limit_remembered", "text_not_utf8", "list_of_another_user"}) {
    metrics.CountRefusal(rule);
    CHECK(Has(TextOf(metrics), std::string("keys_refusals_total{rule=\"") + rule + "\"} 1"));
  }
  for (const DatabaseFault fault :
       {DatabaseFault::kUnavailable, DatabaseFault::kTimeout, DatabaseFault::kInternal}) {
    metrics.CountRefusal(Describe(fault));
  }
  CHECK(Has(TextOf(metrics), "keys_refusals_total{rule=\"timeout\"} 1"));
  CHECK(Has(TextOf(metrics), "keys_refusals_total{rule=\"other\"} 0"));
  metrics.CountRefusal("of a rule that is not in the table");
  CHECK(Has(TextOf(metrics), "keys_refusals_total{rule=\"other\"} 1"));
}

TEST_CASE("a file that cannot be used costs counts only, and is told once") {
  Metrics metrics("/nonexistent/metrics");
  metrics.Add(Counter::kKeyReloads);
  CHECK(Has(TextOf(metrics), "keys_key_reloads_total 1"));
  CHECK(Has(TextOf(metrics), "keys_processes 1"));
  const std::string problem = metrics.TakeProblem();
  CHECK(problem.find("/nonexistent/metrics-") == 0);
  CHECK(problem.ends_with(": No such file or directory"));
  CHECK(metrics.TakeProblem().empty());
  CHECK(Metrics("").TakeProblem().empty());
}

}  // namespace
}  // namespace keys
