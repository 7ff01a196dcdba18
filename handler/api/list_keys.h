// Handles a request, in two functions that know no socket, no database and no clock:
//
//   Authorize   method? cross-site? cookie -> token -> session? known to have ended? known to be
//               over the limit? Any refusal is a response at once; otherwise a lookup is needed.
//   Respond     what the lookup found -> the response
//
// The order of the refusals is the order above: 405, 403, 401 (431 for too long a token), 429.
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
#include "handler/base/bounded_cache.h"
#include "handler/base/clock.h"
#include "handler/config.h"
#include "handler/database/lookup_batcher.h"

namespace keys {

// The time by both clocks: the wall clock checks tokens, the steady clock measures durations.
struct Moment {
  UnixTime wall;
  Clock::time_point steady;
  static Moment Now() { return {std::chrono::system_clock::now(), Clock::now()}; }
};

// What is kept of a request between Authorize and Respond.
struct RequestContext {
  std::string request_id;
  std::string trace_id;  // empty: none
  bool head_only = false;
  bool has_user = false;
  bool cache_hit = false;
  bool is_readiness_check = false;  // of a load balancer: no user, nothing to list
  Uuid user;
  Uuid session;
  std::string_view rule;  // why the request was refused, for the log; a literal
  Clock::time_point began;
  Clock::time_point asked;     // when Authorize was done; set by the caller
  Clock::time_point answered;  // when the database had answered; `asked` without a lookup
};

// Writes the body that Respond takes: the list, or nothing when no request is granted.
void WriteListBody(const LookupResult& result, std::string& body);

class ListKeys {
 public:
  // `metrics` outlives this.
  ListKeys(const Config& config, Metrics& metrics);

  // True: look up context.user and context.session, then Respond. False: `response` is complete.
  // `keys` may change from call to call.
  bool Authorize(const Request& request, const JwkSet& keys, Moment now, RequestContext& context,
                 Response& response);

  // `position`, from 0, is the request's among those that the lookup answers. `body` is the list as
  // JSON, written once for all of them; empty when there is none or its text is not UTF-8.
  void Respond(const LookupResult& result, size_t position, std::string_view body, Moment now,
               RequestContext& context, Response& response);

 private:
  struct SessionId {
    Uuid user;
    Uuid session;
  };

  // The first candidate that is a valid session token; else the refusal of the first candidate.
  Verdict FindSession(const Request& request, const JwkSet& keys, Moment now,
                      RequestContext& context);
  void Refuse(ApiError error, std::string_view rule, RequestContext& context, Response& response);
  void RefuseOver(const Quota& quota, std::string_view rule, RequestContext& context,
                  Response& response);
  bool RefuseKnown(Moment now, RequestContext& context, Response& response);
  void RespondWithList(const LookupResult& result, size_t position, std::string_view body,
                       RequestContext& context, Response& response);
  void AppendServerTiming(const RequestContext& context, Moment now, Response& response) const;

  SessionCookieNames cookies_;
  std::string challenge_;  // WWW-Authenticate of every 401
  bool server_timing_;
  Metrics& metrics_;
  TokenCache tokens_;
  OverLimitCache over_limit_;
  BoundedCache<SessionId, Clock::time_point> ended_sessions_;  // no lookup until then
  std::string cookie_scratch_;
};

// Writes the one log line of a request and counts the request in the metrics.
void LogRequest(const RequestContext& context, const Response& response, Moment now,
                Metrics& metrics);

}  // namespace keys

#endif  // HANDLER_API_LIST_KEYS_H_
