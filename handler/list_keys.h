// THE STORY of a request, in two functions that know no socket and no clock:
//
//   Begin   method? cross-site? cookie -> token -> session? known to be over the limit?
//           Any refusal is a response at once; otherwise the database is to be asked.
//   End     the row, or why there is none -> the response
//
// The order of the refusals is the order above: 405, 403, 401, 429.
// Thread rule: one thread.
#ifndef HANDLER_LIST_KEYS_H_
#define HANDLER_LIST_KEYS_H_

#include <chrono>
#include <string>
#include <string_view>

#include "handler/api_error.h"
#include "handler/config.h"
#include "handler/http.h"
#include "handler/key_store.h"
#include "handler/metrics.h"
#include "handler/postgres.h"
#include "handler/rate_limit.h"
#include "handler/token_cache.h"

namespace keys {

// Both clocks at one moment: tokens are checked by the one, waiting is measured by the other.
struct Moment {
  UnixTime wall;
  Clock::time_point steady;
  static Moment Now() { return {std::chrono::system_clock::now(), Clock::now()}; }
};

// What is kept of a request between Begin and End.
struct Exchange {
  std::string request_id;
  bool head_only = false;
  bool has_user = false;
  bool cache_hit = false;
  Uuid user;
  Uuid session;
  std::string_view rule;  // why the session was refused, for the log; a literal
  Clock::time_point began;
  Clock::time_point asked;     // the database; began when it was not
  Clock::time_point answered;  // by the database
};

class ListKeys {
 public:
  // `metrics` outlives this.
  ListKeys(const Config& config, Metrics& metrics);

  // True: ask the statement with exchange.user and exchange.session, then End. False: `response` is
  // complete. `keys` may change from call to call.
  bool Begin(const Request& request, const JwkSet& keys, Moment now, Exchange& exchange,
             Response& response);

  // `row` is null when there is a fault, or when the session is not live.
  void End(const Row* row, DatabaseFault fault, std::string_view sqlstate, Moment now,
           Exchange& exchange, Response& response);

 private:
  void Refuse(ApiError error, const Exchange& exchange, Response& response);
  void RefuseOver(const Quota& quota, const Exchange& exchange, Response& response);
  void AppendServerTiming(const Exchange& exchange, Moment now, Response& response) const;

  SessionCookieNames cookies_;
  std::string challenge_;  // WWW-Authenticate, of every 401
  bool server_timing_;
  Metrics& metrics_;
  TokenCache tokens_;
  OverLimit over_limit_;
  KeyList list_;  // reused
  std::string cookie_scratch_;
};

// The one log line a request, and its place in the metrics.
void LogExchange(const Exchange& exchange, const Response& response, Moment now, Metrics& metrics);

}  // namespace keys

#endif  // HANDLER_LIST_KEYS_H_
