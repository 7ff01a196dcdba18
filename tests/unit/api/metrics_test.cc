#include "handler/api/metrics.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace keys {
namespace {

// A file that is gone at the end of the test.
class TemporaryFile {
 public:
  TemporaryFile() { close(mkstemp(path_)); }
  ~TemporaryFile() { unlink(path_); }
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
  metrics.CountRequest("ok", std::chrono::microseconds(300));
  metrics.CountRequest("ok", std::chrono::microseconds(250));
  metrics.CountRequest("expired_session", std::chrono::microseconds(3000000));
  const std::string text = TextOf(metrics);
  CHECK(Has(text, "keys_requests_total{status=\"200\",code=\"ok\"} 2"));
  CHECK(Has(text, "keys_requests_total{status=\"401\",code=\"expired_session\"} 1"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"0.00025\"} 1"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"2.5\"} 2"));
  CHECK(Has(text, "keys_request_duration_seconds_bucket{le=\"+Inf\"} 3"));
  CHECK(Has(text, "keys_request_duration_seconds_sum 3.000550"));
}

TEST_CASE("processes of a pool add up, and the counts of one that is gone stay") {
  const TemporaryFile file;
  Metrics here(file.path());
  here.Add(Counter::kKeyReloads);
  here.SetDatabaseConnected(true);
  const pid_t child = fork();
  if (child == 0) {
    Metrics there(file.path());
    there.Add(Counter::kKeyReloads, 2);
    there.SetDatabaseConnected(true);
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

TEST_CASE("a file that cannot be used stops the start") {
  CHECK_THROWS_AS(Metrics("/nonexistent/metrics"), std::runtime_error);
  CHECK_THROWS_AS(Metrics("/dev/null"), std::runtime_error);
}

}  // namespace
}  // namespace keys
