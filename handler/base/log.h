// The log: one line per event on stderr, as `time level event name=value …` (logfmt).
//
//   2026-11-24T09:42:11.123Z warning database_lost sqlstate=57P01 in_flight=3 retried=3
//
// Never hand it a token, a cookie or a secret: values are quoted and escaped, not censored.
//
// The log gathers lines in memory. FlushLog() writes them with one write(2); the event loop calls
// it once per turn, and kError flushes at once. The log never blocks and never fails its caller:
// when its reader is slow or its disk is full, it drops lines and logs their number later. Thread
// rule: one thread.
#ifndef HANDLER_BASE_LOG_H_
#define HANDLER_BASE_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace keys {

enum class Level { kInfo, kWarning, kError };

// One field of a line: text, or an integer. Lives no longer than the call it is passed to.
struct LogField {
  LogField(std::string_view field_name, std::string_view text)
      : name(field_name), text_value(text) {}
  LogField(std::string_view field_name, const char* text) : name(field_name), text_value(text) {}
  LogField(std::string_view field_name, int64_t number)
      : name(field_name), number_value(number), is_number(true) {}

  std::string_view name;
  std::string_view text_value;
  int64_t number_value = 0;
  bool is_number = false;
};

void Log(Level level, std::string_view event, std::initializer_list<LogField> fields = {});

// Writes what has been gathered. Call it before waiting, and before the process ends.
void FlushLog();

}  // namespace keys

#endif  // HANDLER_BASE_LOG_H_
