#include "handler/base/log.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

namespace keys {
namespace {

// The log goes to stderr from its first line on, so each test is a process of its own: this binary
// again, with one of the skipped cases below.
std::vector<std::string> LinesOf(const std::string& test_case) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  std::string file = std::filesystem::temp_directory_path() / "keys-log-XXXXXX";
  const int fd = mkstemp(file.data());
  REQUIRE(fd >= 0);
  close(fd);
  const char* const runner = std::getenv("RUNNER");  // of a program for another machine: tests/run
  const std::string command = std::string(runner == nullptr ? "" : runner) + " '" + program +
                              "' -ns -tc='" + test_case + "' >/dev/null 2>'" + file + "'";
  CHECK(std::system(command.c_str()) == 0);
  std::vector<std::string> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  std::filesystem::remove(file);
  return lines;
}

struct Row {
  std::string_view value;
  std::string_view written;
};

const Row kValues[] = {
    {"plain", "plain"},
    {"req_0a-b", "req_0a-b"},
    {"/tmp/x:5432", "/tmp/x:5432"},
    {"", "\"\""},
    {"two words", "\"two words\""},
    {"a=b", "\"a=b\""},
    {"say \"x\"", R"("say \"x\"")"},
    {"back\\slash", R"("back\\slash")"},
    {"line\nbreak", R"("line\x0abreak")"},
    {"\r\n2026-01-01T00:00:00Z error forged", R"("\x0d\x0a2026-01-01T00:00:00Z error forged")"},
    {std::string_view("a\0b", 3), R"("a\x00b")"},
    {"\x1b[31m", R"("\x1b[31m")"},
    {"\x7f", R"("\x7f")"},
    {"Grüße", "\"Grüße\""},
};

TEST_CASE("child: values" * doctest::skip()) {
  for (const Row& row : kValues) Log(Level::kInfo, "event", {{"value", row.value}});
  FlushLog();
}

TEST_CASE("a value is one word, or quoted and escaped onto one line") {
  const std::vector<std::string> lines = LinesOf("child: values");
  REQUIRE(lines.size() == std::size(kValues));
  for (size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(lines[i]);
    CHECK(lines[i].ends_with(" info event value=" + std::string(kValues[i].written)));
  }
}

TEST_CASE("child: levels and numbers" * doctest::skip()) {
  Log(Level::kInfo, "started", {{"pid", int64_t{12}}, {"least", INT64_MIN}});
  Log(Level::kWarning, "alone");
  Log(Level::kInfo, "long", {{"text", std::string(5000, 'x')}});
  FlushLog();
}

TEST_CASE("a line is time, level, event and fields") {
  const std::vector<std::string> lines = LinesOf("child: levels and numbers");
  REQUIRE(lines.size() == 3);
  static constexpr char kTime[] = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)";
  CHECK(std::regex_match(lines[0], std::regex(std::string(kTime) +
                                              " info started pid=12 least=-9223372036854775808")));
  CHECK(std::regex_match(lines[1], std::regex(std::string(kTime) + " warning alone")));
  CHECK(lines[2].ends_with(" text=" + std::string(512, 'x')));
}

TEST_CASE("child: an error, then an end without a flush" * doctest::skip()) {
  Log(Level::kInfo, "before");
  Log(Level::kError, "error");
  Log(Level::kInfo, "lost");
  _exit(0);
}

TEST_CASE("an error is written at once, with what was gathered before it") {
  const std::vector<std::string> lines =
      LinesOf("child: an error*");  // a comma would end doctest's filter
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].ends_with(" info before"));
  CHECK(lines[1].ends_with(" error error"));
}

TEST_CASE("child: a flood" * doctest::skip()) {
  for (int i = 0; i < 10000; ++i) Log(Level::kInfo, "flood", {{"text", std::string(100, 'x')}});
  FlushLog();
  FlushLog();
  Log(Level::kInfo, "after");
  FlushLog();
}

TEST_CASE("lines beyond the memory for them are dropped") {
  const std::vector<std::string> lines = LinesOf("child: a flood");
  CHECK(lines.size() > 1000);
  CHECK(lines.size() < 4000);
  CHECK(lines[lines.size() - 2].ends_with(" info after"));
  CHECK(lines.back().find(" warning log_lines_dropped lines=") != std::string::npos);
}

}  // namespace
}  // namespace keys
