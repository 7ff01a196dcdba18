#include "handler/api/api_error.h"

#include <iterator>

#include "handler/api/response_body.h"

namespace keys {
namespace {

constexpr ApiErrorRow kApiErrors[] = {
    {401, "missing_api_key",
     "Sign in first: this endpoint takes the session cookie of a signed-in browser, not an API "
     "key.",
     ""},
    {401, "invalid_session", "The session is not valid. Sign in again.", ""},
    {401, "expired_session", "The session has expired. Sign in again.", ""},
    {403, "cross_site_request", "This endpoint answers requests from its own site only.", ""},
    {405, "method_not_allowed", "Only GET and HEAD are allowed here.", "Allow: GET, HEAD\r\n"},
    {429, "rate_limit_exceeded", "Too many requests. Wait for Retry-After seconds.", ""},
    {431, "headers_too_large",
     "The session token is too large. Signing in again does not help: remove large values from "
     "the user's user_metadata.",
     ""},
    {503, "service_unavailable", "The service is unavailable for the moment. Try again shortly.",
     "Retry-After: 1\r\n"},
    {500, "internal_error", "Something went wrong on our side. Quote the request_id to support.",
     ""},
};
static_assert(std::size(kApiErrors) == static_cast<size_t>(ApiError::kCount));

}  // namespace

std::span<const ApiErrorRow> ApiErrors() {
  return kApiErrors;
}

std::string_view CodeOf(std::optional<ApiError> error) {
  return error ? kApiErrors[static_cast<size_t>(*error)].code : "ok";
}

void RespondWithError(ApiError error, std::string_view request_id, const Window* over,
                      Response& response) {
  const ApiErrorRow& row = kApiErrors[static_cast<size_t>(error)];
  response.status = row.status;
  response.error = error;
  response.headers += row.headers;
  WriteError(row.code, row.message, request_id, over, response.body);
}

}  // namespace keys
