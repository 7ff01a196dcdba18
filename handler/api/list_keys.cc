#include "handler/api/list_keys.h"

#include <optional>
#include <variant>

#include "handler/api/response_body.h"
#include "handler/base/log.h"
#include "handler/base/text.h"

namespace keys {
namespace {

ApiError ErrorOf(TokenRefusal refusal) {
  switch (KindOf(refusal)) {
    case RefusalKind::kMissing:
      return ApiError::kMissingApiKey;
    case RefusalKind::kExpired:
      return ApiError::kExpiredSession;
    case RefusalKind::kTooLarge:
      return ApiError::kHeadersTooLarge;
    case RefusalKind::kInvalid:
      break;
  }
  return ApiError::kInvalidSession;
}

constexpr size_t kEndedSessions = 4096;

}  // namespace

ListKeys::ListKeys(const Config& config, Metrics& metrics)
    : cookies_(config.cookies),
      challenge_("WWW-Authenticate: Cookie realm=\"SOC Defenders\", cookie-name=\"" +
                 config.cookies.token + "\"\r\n"),
      server_timing_(config.server_timing),
      metrics_(metrics),
      tokens_(config.token),
      ended_sessions_(kEndedSessions) {}

void WriteListBody(const LookupResult& result, std::string& body) {
  if (result.list == nullptr || result.list->granted == 0 ||
      !WriteKeyList(result.list->keys, result.key_at, body)) {
    body.clear();
  }
}

bool ListKeys::Authorize(const Request& request, const JwkSet& keys, Moment now,
                         RequestContext& context, Response& response) {
  AssignRequestId(request, context.request_id);
  context.trace_id.assign(IsTraceId(request.trace_id) ? request.trace_id : "");
  context.head_only = request.method == "HEAD";
  context.has_user = false;
  context.cache_hit = false;
  context.rule = {};
  context.began = context.asked = context.answered = now.steady;

  if (request.method != "GET" && request.method != "HEAD") {
    Refuse(ApiError::kMethodNotAllowed, "method", context, response);
    return false;
  }
  if (request.sec_fetch_site == "cross-site") {
    Refuse(ApiError::kCrossSiteRequest, "cross_site", context, response);
    return false;
  }

  const Verdict verdict = FindSession(request, keys, now, context);
  if (const auto* const refusal = std::get_if<TokenRefusal>(&verdict)) {
    const bool is_api_key = request.has_api_key && *refusal == TokenRefusal::kNoCookie;
    Refuse(ErrorOf(*refusal), is_api_key ? "api_key_without_cookie" : Describe(*refusal), context,
           response);
    return false;
  }
  const Claims& claims = std::get<Claims>(verdict);
  context.has_user = true;
  context.user = claims.user;
  context.session = claims.session;
  return !RefuseKnown(now, context, response);
}

// Refuses a request by what a recent lookup found, without another lookup.
bool ListKeys::RefuseKnown(Moment now, RequestContext& context, Response& response) {
  const Clock::time_point* const until = ended_sessions_.Find({context.user, context.session});
  if (until != nullptr && now.steady < *until) {
    Refuse(ApiError::kInvalidSession, "session_not_live_remembered", context, response);
    return true;
  }
  if (const std::optional<Quota> over = over_limit_.Find(context.user, now.steady)) {
    metrics_.Add(Counter::kOverLimitFromMemory);
    RefuseOver(*over, "over_limit_remembered", context, response);
    return true;
  }
  return false;
}

Verdict ListKeys::FindSession(const Request& request, const JwkSet& keys, Moment now,
                              RequestContext& context) {
  std::optional<TokenRefusal> told;  // the first candidate's
  SessionCandidates candidates(request.cookie, cookies_, cookie_scratch_);
  while (const std::optional<SessionCandidate> candidate = candidates.Next()) {
    const auto* const token = std::get_if<std::string_view>(&*candidate);
    Verdict verdict = TokenRefusal::kNoCookie;
    if (token == nullptr) {
      verdict = std::get<TokenRefusal>(*candidate);
    } else {
      verdict = tokens_.Verify(*token, keys, now.wall, &context.cache_hit);
      metrics_.Add(context.cache_hit ? Counter::kTokenCacheHits : Counter::kTokenCacheMisses);
    }
    if (std::holds_alternative<Claims>(verdict)) return verdict;
    if (!told) told = std::get<TokenRefusal>(verdict);
  }
  return told.value_or(TokenRefusal::kNoCookie);
}

void ListKeys::Respond(const LookupResult& result, size_t position, std::string_view body,
                       Moment now, RequestContext& context, Response& response) {
  if (result.fault != DatabaseFault::kNone) {
    metrics_.Add(Counter::kDatabaseFaults);
    if (!result.sqlstate.empty()) {
      Log(Level::kWarning, "statement_failed",
          {{"id", context.request_id},
           {"sqlstate", result.sqlstate},
           {"fault", Describe(result.fault)}});
    }
    Refuse(result.fault == DatabaseFault::kInternal ? ApiError::kInternalError
                                                    : ApiError::kServiceUnavailable,
           Describe(result.fault), context, response);
  } else if (result.list == nullptr) {
    ended_sessions_.Insert({context.user, context.session},
                           result.sent_at + LookupBatcher::kRefusalValidFor);
    Refuse(ApiError::kInvalidSession, "session_not_live", context, response);
  } else {
    RespondWithList(result, position, body, context, response);
  }
  context.answered = now.steady;
  metrics_.Observe(Histogram::kDatabaseWait, Microseconds(context.answered - context.asked));
  AppendServerTiming(context, now, response);
}

void ListKeys::RespondWithList(const LookupResult& result, size_t position, std::string_view body,
                               RequestContext& context, Response& response) {
  const KeyList& list = *result.list;
  if (list.user != context.user) {  // a bug; never show a user another user's keys
    Log(Level::kError, "list_of_another_user", {{"id", context.request_id}});
    return Refuse(ApiError::kInternalError, "list_of_another_user", context, response);
  }
  const Quota quota = QuotaOf(list, position);
  if (position >= static_cast<size_t>(list.granted)) {
    over_limit_.Remember(context.user, quota, result.sent_at);
    return RefuseOver(quota, "over_limit", context, response);
  }
  if (body.empty()) {
    return Refuse(ApiError::kInternalError, "text_not_utf8", context, response);
  }
  response.list = body;
  AppendRateLimitHeaders(quota, false, response.headers);
}

void ListKeys::Refuse(ApiError error, std::string_view rule, RequestContext& context,
                      Response& response) {
  context.rule = rule;
  RespondWithError(error, context.request_id, nullptr, response);
  if (response.status == 401) response.headers += challenge_;
}

void ListKeys::RefuseOver(const Quota& quota, std::string_view rule, RequestContext& context,
                          Response& response) {
  context.rule = rule;
  metrics_.CountRateLimited(quota.minute.limit, quota.Described().name);
  RespondWithError(ApiError::kRateLimitExceeded, context.request_id, &quota.Described(), response);
  AppendRateLimitHeaders(quota, true, response.headers);
}

void ListKeys::AppendServerTiming(const RequestContext& context, Moment now,
                                  Response& response) const {
  if (!server_timing_) return;
  const auto append = [&](std::string_view name, Clock::duration duration) {
    const int64_t microseconds = Microseconds(duration);
    char fraction[] = ".000";
    WriteDigits(fraction + 1, static_cast<int>(microseconds % 1000), 3);
    response.headers += name;
    AppendNumber(response.headers, microseconds / 1000);
    response.headers += fraction;
  };
  append("Server-Timing: token;dur=", context.asked - context.began);
  append(", db;dur=", context.answered - context.asked);
  append(", total;dur=", now.steady - context.began);
  response.headers += "\r\n";
}

void LogRequest(const RequestContext& context, const Response& response, Moment now,
                Metrics& metrics) {
  const Clock::duration whole = now.steady - context.began;
  metrics.CountRequest(response.error,
                       std::chrono::duration_cast<std::chrono::microseconds>(whole));
  if (!context.rule.empty()) metrics.CountRefusal(context.rule);
  char user[36];
  if (context.has_user) FormatUuid(context.user, user);
  Log(Level::kInfo, "request",
      {{"id", context.request_id},
       {"trace", context.trace_id.empty() ? "-" : context.trace_id},
       {"user", context.has_user ? std::string_view(user, sizeof user) : "-"},
       {"status", response.status},
       {"code", CodeOf(response.error)},
       {"rule", context.rule.empty() ? "-" : context.rule},
       {"token_us", Microseconds(context.asked - context.began)},
       {"database_us", Microseconds(context.answered - context.asked)},
       {"total_us", Microseconds(whole)},
       {"cache", context.cache_hit ? "hit" : "miss"}});
}

}  // namespace keys
