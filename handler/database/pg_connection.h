// One libpq connection in pipeline mode and its place in the caller's epoll: with conninfo
// the only module that knows libpq. Policy is lookup_batcher.h's.
//
// Everything that is sent ends with its own Sync, so that each is its own transaction and has an
// Answer of its own, in the order of sending. Nothing blocks but the look-up of a host's name,
// which libpq does not offer otherwise.
//
// Errors: none are thrown; false or kEnd means that the connection is over, and Message() says why.
// Thread rule: one thread.
#ifndef HANDLER_DATABASE_PG_CONNECTION_H_
#define HANDLER_DATABASE_PG_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "handler/database/conninfo.h"
#include "handler/database/lookup_queue.h"

struct pg_conn;
struct pg_result;

namespace keys {

// A row of an answer, in PostgreSQL's binary format; valid as long as the answer. A null is empty.
class Row {
 public:
  Row(const pg_result* result, int row);
  int columns() const;
  std::string_view Bytes(int column) const;
  size_t length() const;  // bytes, all columns together

 private:
  const pg_result* result_;
  int row_;
};

class Answer {
 public:
  Answer() = default;
  explicit Answer(pg_result* owned) : result_(owned) {}

  bool is_good() const;  // rows, perhaps none; else an error
  int rows() const;
  Row row(int number) const { return {result_.get(), number}; }
  size_t memory() const;         // bytes
  std::string sqlstate() const;  // of an error
  std::string Message() const;   // of an error, in one line
  explicit operator bool() const { return result_ != nullptr; }

 private:
  struct Clear {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Clear> result_;
};

class PgConnection {
 public:
  // Begins to connect to the host of that index. Events of the socket are registered with `epoll`,
  // which outlives this, under `tag`.
  PgConnection(const Conninfo& conninfo, size_t host, int epoll, uint64_t tag);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  enum class Connecting { kUnderWay, kDone, kFailed };
  // The socket is ready, or the object new.
  Connecting Continue();

  // The longest that a statement takes, that it waits for a lock, and that a lookup waits for one
  // that goes alone.
  bool SetTimeouts(std::chrono::milliseconds statement, std::chrono::milliseconds lock,
                   std::chrono::milliseconds lock_alone);
  // A statement of two uuid[], under that number.
  bool Prepare(int statement, const std::string& sql);
  // Asks it for the users and the sessions of the lookups.
  bool Ask(int statement, const std::vector<Lookup>& lookups);

  // The socket is ready: reads what has come and writes what is left.
  bool Receive();
  // kAnswer: an answer, complete. kEnd: the connection is over; the server's last word is `answer`.
  enum class Next { kNothing, kAnswer, kEnd };
  Next TakeAnswer(Answer& answer);

  std::string host() const;
  // libpq's last complaint.
  std::string Message() const;

 private:
  struct Close {
    void operator()(pg_conn* connection) const;
  };

  bool Sync(int sent);
  bool Flush();
  void Watch(uint32_t events);

  int epoll_;
  uint64_t tag_;
  std::unique_ptr<pg_conn, Close> connection_;
  int watched_ = -1;  // the descriptor; libpq changes it while it connects
  uint32_t watched_events_ = 0;
  int unanswered_ = 0;            // Syncs
  Answer coming_;                 // its Sync has not come
  std::string lock_alone_;        // milliseconds
  std::string users_, sessions_;  // Ask's parameters; reused
};

}  // namespace keys

#endif  // HANDLER_DATABASE_PG_CONNECTION_H_
