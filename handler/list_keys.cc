#include "handler/list_keys.h"

#include <cstdio>

#include "handler/json.h"
#include "handler/log.h"

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

constexpr size_t kMostKeysKept = 1000;  // a longer list's memory is given back

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

bool ListKeys::Begin(const Request& request, const JwkSet& keys, Moment now, Exchange& exchange,
                     Response& response) {
  exchange.request_id.assign(request.request_id);
  if (!IsRequestId(request.request_id)) exchange.request_id = MakeRequestId();
  exchange.head_only = request.method == "HEAD";
  exchange.has_user = false;
  exchange.cache_hit = false;
  exchange.rule = {};
  exchange.began = exchange.asked = exchange.answered = now.steady;

  if (request.method != "GET" && request.method != "HEAD") {
    Refuse(ApiError::kMethodNotAllowed, exchange, response);
    return false;
  }
  if (request.sec_fetch_site == "cross-site") {
    Refuse(ApiError::kCrossSiteRequest, exchange, response);
    return false;
  }

  const auto cookie = FindSessionToken(request.cookie, cookies_, cookie_scratch_);
  Verdict verdict = TokenRefusal::kNoCookie;
  if (const auto* const token = std::get_if<std::string_view>(&cookie)) {
    verdict = tokens_.Verify(*token, keys, now.wall, &exchange.cache_hit);
    metrics_.Add(exchange.cache_hit ? Counter::kTokenCacheHits : Counter::kTokenCacheMisses);
  } else {
    verdict = std::get<TokenRefusal>(cookie);
  }
  if (const auto* const refusal = std::get_if<TokenRefusal>(&verdict)) {
    exchange.rule = request.has_api_key && *refusal == TokenRefusal::kNoCookie
                        ? "api_key_without_cookie"
                        : Describe(*refusal);
    Refuse(ErrorOf(*refusal), exchange, response);
    return false;
  }
  const Claims& claims = std::get<Claims>(verdict);
  exchange.has_user = true;
  exchange.user = claims.user;
  exchange.session = claims.session;

  if (const std::optional<Quota> over = over_limit_.Find(claims.user, now.steady)) {
    metrics_.Add(Counter::kOverLimitFromMemory);
    exchange.rule = "over_limit_remembered";
    RefuseOver(*over, exchange, response);
    return false;
  }
  exchange.asked = Clock::now();
  return true;
}

void ListKeys::End(const Row* row, DatabaseFault fault, std::string_view sqlstate, Moment now,
                   Exchange& exchange, Response& response) {
  exchange.answered = now.steady;
  if (row != nullptr && !ReadKeyList(*row, list_)) fault = DatabaseFault::kInternal;
  if (fault != DatabaseFault::kNone) {
    metrics_.Add(Counter::kDatabaseFaults);
    exchange.rule = Describe(fault);
    if (!sqlstate.empty()) {
      Log(Level::kWarning, "statement_failed",
          {{"id", exchange.request_id}, {"sqlstate", sqlstate}, {"fault", Describe(fault)}});
    }
    Refuse(fault == DatabaseFault::kInternal ? ApiError::kInternalError
                                             : ApiError::kServiceUnavailable,
           exchange, response);
  } else if (row == nullptr) {
    exchange.rule = "session_not_live";
    Refuse(ApiError::kInvalidSession, exchange, response);
  } else if (const Quota quota = QuotaOf(list_); !list_.admitted) {
    over_limit_.Remember(exchange.user, quota, now.steady);
    exchange.rule = "over_limit";
    RefuseOver(quota, exchange, response);
  } else if (!WriteKeyList(list_, response.body)) {
    exchange.rule = "text_not_utf8";
    Refuse(ApiError::kInternalError, exchange, response);
  } else {
    AppendRateLimitHeaders(quota, false, response.headers);
  }
  AppendServerTiming(exchange, now, response);
  if (list_.keys.size() > kMostKeysKept) list_ = {};
}

void ListKeys::Refuse(ApiError error, const Exchange& exchange, Response& response) {
  RespondWithError(error, exchange.request_id, nullptr, response);
  if (response.status == 401) response.headers += challenge_;
}

void ListKeys::RefuseOver(const Quota& quota, const Exchange& exchange, Response& response) {
  RespondWithError(ApiError::kRateLimitExceeded, exchange.request_id, &quota.Described(), response);
  AppendRateLimitHeaders(quota, true, response.headers);
}

void ListKeys::AppendServerTiming(const Exchange& exchange, Moment now, Response& response) const {
  if (!server_timing_) return;
  const auto milliseconds = [](Clock::duration duration) {
    return static_cast<double>(Microseconds(duration)) / 1000;
  };
  char line[128];
  const int length = std::snprintf(
      line, sizeof line, "Server-Timing: token;dur=%.3f, db;dur=%.3f, total;dur=%.3f\r\n",
      milliseconds(exchange.asked - exchange.began),
      milliseconds(exchange.answered - exchange.asked), milliseconds(now.steady - exchange.began));
  response.headers.append(line, static_cast<size_t>(length));
}

void LogExchange(const Exchange& exchange, const Response& response, Moment now, Metrics& metrics) {
  const Clock::duration whole = now.steady - exchange.began;
  metrics.CountRequest(response.code, std::chrono::duration_cast<std::chrono::microseconds>(whole));
  char user[36];
  if (exchange.has_user) FormatUuid(exchange.user, user);
  Log(Level::kInfo, "request",
      {{"id", exchange.request_id},
       {"user", exchange.has_user ? std::string_view(user, sizeof user) : "-"},
       {"status", response.status},
       {"code", response.code},
       {"rule", exchange.rule.empty() ? "-" : exchange.rule},
       {"token_us", Microseconds(exchange.asked - exchange.began)},
       {"database_us", Microseconds(exchange.answered - exchange.asked)},
       {"total_us", Microseconds(whole)},
       {"cache", exchange.cache_hit ? "hit" : "miss"}});
}

}  // namespace keys
