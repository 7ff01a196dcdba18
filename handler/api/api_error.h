// Every error response of the handler, in one table: status, code, message and extra headers.
// nginx's own codes and messages are in nginx/keys-http.conf.
#ifndef HANDLER_API_API_ERROR_H_
#define HANDLER_API_API_ERROR_H_

#include <optional>
#include <span>
#include <string_view>

#include "handler/api/http.h"
#include "handler/api/rate_limit.h"

namespace keys {

enum class ApiError : uint8_t {
  kMissingApiKey,
  kInvalidSession,
  kExpiredSession,
  kCrossSiteRequest,
  kMethodNotAllowed,
  kRateLimitExceeded,
  kHeadersTooLarge,
  kServiceUnavailable,
  kInternalError,
  kCount
};

struct ApiErrorRow {
  int status;
  std::string_view code;
  std::string_view message;
  std::string_view headers;  // complete lines
};

// In the order of ApiError.
std::span<const ApiErrorRow> ApiErrors();

// The code of the error; "ok" without one.
std::string_view CodeOf(std::optional<ApiError> error);

// Fills `response`. `over` is the exhausted window for kRateLimitExceeded, otherwise null. The
// caller adds the rate limit's headers.
void RespondWithError(ApiError error, std::string_view request_id, const Window* over,
                      Response& response);

}  // namespace keys

#endif  // HANDLER_API_API_ERROR_H_
