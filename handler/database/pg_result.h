// A result of PostgreSQL: its rows, or its error. Only pg_result, pg_connection, conninfo and
// database_check use libpq.
//
// Errors: none are thrown. Thread rule: one thread.
#ifndef HANDLER_DATABASE_PG_RESULT_H_
#define HANDLER_DATABASE_PG_RESULT_H_

#include <memory>
#include <string>
#include <string_view>

struct pg_result;

namespace keys {

// A row of a result, in PostgreSQL's binary format; valid as long as the result. A null is empty.
class Row {
 public:
  Row(const pg_result* result, int row);
  int columns() const;
  std::string_view Bytes(int column) const;

 private:
  const pg_result* result_;
  int row_;
};

class Result {
 public:
  Result() = default;
  explicit Result(pg_result* owned) : result_(owned) {}

  bool is_good() const;  // has rows, perhaps none, and no error
  int rows() const;
  Row row(int number) const { return {result_.get(), number}; }
  size_t memory() const;         // bytes
  std::string sqlstate() const;  // of an error; empty when it is libpq's own
  std::string Message() const;   // of an error, in one line
  explicit operator bool() const { return result_ != nullptr; }

 private:
  struct Clear {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Clear> result_;
};

// libpq's message in one line, without the lines that name a place in PostgreSQL's source.
std::string OneLine(const char* message);

// The SQLSTATE in the message of a failed connection attempt. libpq has no other way to tell it;
// Conninfo::StartConnect makes the messages verbose. Empty when the server did not answer.
std::string_view SqlStateIn(std::string_view message);

}  // namespace keys

#endif  // HANDLER_DATABASE_PG_RESULT_H_
