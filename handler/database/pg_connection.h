// One libpq connection in pipeline mode and its socket in the caller's epoll. Policy is in
// lookup_batcher.h.
//
// Each statement ends with its own Sync, so it is its own transaction with its own Result, in the
// order of sending. Nothing blocks except the resolution of a host name, which libpq cannot do in
// the background.
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
#include "handler/database/pg_result.h"

struct pg_conn;

namespace keys {

class PgConnection {
 public:
  // Begins to connect to the host at this index. Registers the socket's events under `tag` with
  // `epoll`, which outlives this.
  PgConnection(const Conninfo& conninfo, size_t host, int epoll, uint64_t tag);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  // Continues to connect, if the socket is ready. Call it after construction and at each event.
  enum class Progress { kUnderWay, kDone, kFailed };
  Progress Continue();

  // Sets the session's settings, whatever the role, the database or the URL say, and asks what the
  // server is. The result is one row: its first column is `on` when the server is read-only, its
  // second is `on` when the role can see the tiers. `statement` and `lock` are the session's
  // timeouts; `lock_alone` replaces `lock` for a lookup that is sent alone.
  bool Configure(std::chrono::milliseconds statement, std::chrono::milliseconds lock,
                 std::chrono::milliseconds lock_alone);
  // Prepares the statement of key_list.h under this number.
  bool Prepare(int statement, const std::string& sql);
  // Sends the statement for these lookups, each with the number of its waiting requests.
  bool Send(int statement, const std::vector<Lookup>& lookups);

  // The socket is ready: reads what has arrived and writes what is left.
  bool Receive();
  // kResult: `result` is complete. kEnd: the connection is over; `result` says why.
  enum class Next { kNothing, kResult, kEnd };
  Next TakeResult(Result& result);

  std::string server() const;   // host:port, or a socket's path
  std::string Message() const;  // libpq's last error
  // The SQLSTATE of the notice in which the server announced the end of the connection, or empty.
  std::string_view announced_end() const { return announced_end_; }

 private:
  struct Close {
    void operator()(pg_conn* connection) const;
  };

  static void OnNotice(void* self, const pg_result* notice);
  bool IsReady() const;
  bool Sync(int sent);
  bool Flush();
  void Watch(uint32_t events);

  int epoll_;
  uint64_t tag_;
  std::string announced_end_;
  std::unique_ptr<pg_conn, Close> connection_;
  int watched_ = -1;  // the descriptor; libpq changes it while it connects
  uint32_t watched_events_ = 0;
  int unanswered_ = 0;                       // Syncs sent, but not received
  Result coming_;                            // the result whose Sync has not arrived
  std::string lock_alone_;                   // milliseconds
  std::string users_, sessions_, requests_;  // Send's parameters; reused
};

}  // namespace keys

#endif  // HANDLER_DATABASE_PG_CONNECTION_H_
