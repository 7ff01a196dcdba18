#include "handler/api/list_keys.h"

#include <cstdio>

#include "handler/api/response_body.h"
#include "handler/base/log.h"

namespace keys {
namespace {

ApiError ErrorOf(TokenRefusal refusal) {
  switch (KindOf(refusal)) {
    case RefusalKind::kMissing:
      return ApiError::kMissingApiKey;
    case RefusalKind::kExpired:
      return ApiError::kExpiredSession;
    case RefusalKind::kInvalid:
      break;
  }
  return ApiError::kInvalidSession;
}

constexpr size_t kMaxKeysKept = 1000;  // a longer list's memory is given back

int64_t Microseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

}  // namespace

ListKeys::ListKeys(const Config& config, Metrics& metrics)
    : cookies_(config.cookies),
      challenge_("WWW-Authenticate: Cookie realm=\"SOC Defenders\", cookie-name=\"" +
                 config.cookies.token + "\"\r\n"),
      server_timing_(config.server_timing),
      metrics_(metrics),
      tokens_(config.token) {}

bool ListKeys::Authorize(const Request& request, const JwkSet& keys, Moment now,
                         RequestContext& context, Response& response) {
  context.request_id.assign(request.request_id);
  if (!IsRequestId(request.request_id)) context.request_id = MakeRequestId();
  context.head_only = request.method == "HEAD";
  context.has_user = false;
  context.cache_hit = false;
  context.rule = {};
  context.began = context.asked = context.answered = now.steady;

  if (request.method != "GET" && request.method != "HEAD") {
    Refuse(ApiError::kMethodNotAllowed, context, response);
    return false;
  }
  if (request.sec_fetch_site == "cross-site") {
    Refuse(ApiError::kCrossSiteRequest, context, response);
    return false;
  }

  const auto cookie = FindSessionToken(request.cookie, cookies_, cookie_scratch_);
  Verdict verdict = TokenRefusal::kNoCookie;
  if (const auto* const token = std::get_if<std::string_view>(&cookie)) {
    verdict = tokens_.Verify(*token, keys, now.wall, &context.cache_hit);
    metrics_.Add(context.cache_hit ? Counter::kTokenCacheHits : Counter::kTokenCacheMisses);
  } else {
    verdict = std::get<TokenRefusal>(cookie);
  }
  if (const auto* const refusal = std::get_if<TokenRefusal>(&verdict)) {
    context.rule = request.has_api_key && *refusal == TokenRefusal::kNoCookie
                       ? "api_key_without_cookie"
                       : Describe(*refusal);
    Refuse(ErrorOf(*refusal), context, response);
    return false;
  }
  const Claims& claims = std::get<Claims>(verdict);
  context.has_user = true;
  context.user = claims.user;
  context.session = claims.session;

  if (const std::optional<Quota> over = over_limit_.Find(claims.user, now.steady)) {
    metrics_.Add(Counter::kOverLimitFromMemory);
    context.rule = "over_limit_remembered";
    RefuseOver(*over, context, response);
    return false;
  }
  context.asked = Clock::now();
  return true;
}

void ListKeys::Respond(const Row* row, DatabaseFault fault, std::string_view sqlstate, Moment now,
                       RequestContext& context, Response& response) {
  context.answered = now.steady;
  if (row != nullptr && !ReadKeyList(*row, list_)) fault = DatabaseFault::kInternal;
  if (fault != DatabaseFault::kNone) {
    metrics_.Add(Counter::kDatabaseFaults);
    context.rule = Describe(fault);
    if (!sqlstate.empty()) {
      Log(Level::kWarning, "statement_failed",
          {{"id", context.request_id}, {"sqlstate", sqlstate}, {"fault", Describe(fault)}});
    }
    Refuse(fault == DatabaseFault::kInternal ? ApiError::kInternalError
                                             : ApiError::kServiceUnavailable,
           context, response);
  } else if (row == nullptr) {
    context.rule = "session_not_live";
    Refuse(ApiError::kInvalidSession, context, response);
  } else if (const Quota quota = QuotaOf(list_); !list_.admitted) {
    over_limit_.Remember(context.user, quota, now.steady);
    context.rule = "over_limit";
    RefuseOver(quota, context, response);
  } else if (!WriteKeyList(list_, response.body)) {
    context.rule = "text_not_utf8";
    Refuse(ApiError::kInternalError, context, response);
  } else {
    AppendRateLimitHeaders(quota, false, response.headers);
  }
  AppendServerTiming(context, now, response);
  if (list_.keys.size() > kMaxKeysKept) list_ = {};
}

void ListKeys::Refuse(ApiError error, const RequestContext& context, Response& response) {
  RespondWithError(error, context.request_id, nullptr, response);
  if (response.status == 401) response.headers += challenge_;
}

void ListKeys::RefuseOver(const Quota& quota, const RequestContext& context, Response& response) {
  RespondWithError(ApiError::kRateLimitExceeded, context.request_id, &quota.Described(), response);
  AppendRateLimitHeaders(quota, true, response.headers);
}

void ListKeys::AppendServerTiming(const RequestContext& context, Moment now,
                                  Response& response) const {
  if (!server_timing_) return;
  const auto milliseconds = [](Clock::duration duration) {
    return static_cast<double>(Microseconds(duration)) / 1000;
  };
  char line[128];
  const int length = std::snprintf(
      line, sizeof line, "Server-Timing: token;dur=%.3f, db;dur=%.3f, total;dur=%.3f\r\n",
      milliseconds(context.asked - context.began), milliseconds(context.answered - context.asked),
      milliseconds(now.steady - context.began));
  response.headers.append(line, static_cast<size_t>(length));
}

void LogRequest(const RequestContext& context, const Response& response, Moment now,
                Metrics& metrics) {
  const Clock::duration whole = now.steady - context.began;
  metrics.CountRequest(response.error,
                       std::chrono::duration_cast<std::chrono::microseconds>(whole));
  char user[36];
  if (context.has_user) FormatUuid(context.user, user);
  Log(Level::kInfo, "request",
      {{"id", context.request_id},
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
