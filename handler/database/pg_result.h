// What PostgreSQL answers: a result, its rows, and the words of an error. Only pg_result,
// pg_connection, conninfo and database_check know libpq.
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

  bool is_good() const;  // rows, perhaps none; else an error
  int rows() const;
  Row row(int number) const { return {result_.get(), number}; }
  size_t memory() const;         // bytes
  std::string sqlstate() const;  // of an error; empty when libpq made it up
  std::string Message() const;   // of an error, in one line
  explicit operator bool() const { return result_ != nullptr; }

 private:
  struct Clear {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Clear> result_;
};

// libpq's message in one line, without the parts that only PostgreSQL's programmers read.
std::string OneLine(const char* message);

// The SQLSTATE in a message of a failed attempt to connect, which Conninfo::StartConnect asks for:
// libpq has no other way to tell. Empty when there is none: the server did not get to speak.
std::string_view SqlStateIn(std::string_view message);

}  // namespace keys

#endif  // HANDLER_DATABASE_PG_RESULT_H_
