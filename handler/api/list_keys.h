// THE STORY of a request, in two functions that know no socket and no clock:
//
//   Authorize   method? cross-site? cookie -> token -> session? known to be over the limit?
//           Any refusal is a response at once; otherwise the database is to be asked.
//   Respond     the row, or why there is none -> the response
//
// The order of the refusals is the order above: 405, 403, 401, 429.
// Thread rule: one thread.
#ifndef HANDLER_API_LIST_KEYS_H_
#define HANDLER_API_LIST_KEYS_H_

#include <chrono>
#include <string>
#include <string_view>

#include "handler/api/api_error.h"
#include "handler/api/http.h"
#include "handler/api/metrics.h"
#include "handler/api/rate_limit.h"
#include "handler/auth/token_cache.h"
#include "handler/config.h"
#include "handler/database/key_list.h"
#include "handler/database/lookup_batcher.h"

namespace keys {

// Both clocks at one moment: tokens are checked by the one, waiting is measured by the other.
struct Moment {
  UnixTime wall;
  Clock::time_point steady;
  static Moment Now() { return {std::chrono::system_clock::now(), Clock::now()}; }
};

// What is kept of a request between Begin and End.
struct RequestContext {
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

  // True: ask the statement with context.user and context.session, then End. False: `response` is
  // complete. `keys` may change from call to call.
  bool Authorize(const Request& request, const JwkSet& keys, Moment now, RequestContext& context,
                 Response& response);

  // `row` is null when there is a fault, or when the session is not live.
  void Respond(const Row* row, DatabaseFault fault, std::string_view sqlstate, Moment now,
               RequestContext& context, Response& response);

 private:
  void Refuse(ApiError error, const RequestContext& context, Response& response);
  void RefuseOver(const Quota& quota, const RequestContext& context, Response& response);
  void AppendServerTiming(const RequestContext& context, Moment now, Response& response) const;

  SessionCookieNames cookies_;
  std::string challenge_;  // WWW-Authenticate, of every 401
  bool server_timing_;
  Metrics& metrics_;
  TokenCache tokens_;
  OverLimitCache over_limit_;
  KeyList list_;  // reused
  std::string cookie_scratch_;
};

// The one log line a request, and its place in the metrics.
void LogRequest(const RequestContext& context, const Response& response, Moment now,
                Metrics& metrics);

}  // namespace keys

#endif  // HANDLER_API_LIST_KEYS_H_
