#include "handler/api/api_error.h"

#include <doctest/doctest.h>

#include <string>

namespace keys {
namespace {

// The table of errors in README.md, the part that the handler answers.
const struct {
  ApiError error;
  int status;
  const char* code;
} kRows[] = {
    {ApiError::kMissingApiKey, 401, "missing_api_key"},
    {ApiError::kInvalidSession, 401, "invalid_session"},
    {ApiError::kExpiredSession, 401, "expired_session"},
    {ApiError::kCrossSiteRequest, 403, "cross_site_request"},
    {ApiError::kMethodNotAllowed, 405, "method_not_allowed"},
    {ApiError::kRateLimitExceeded, 429, "rate_limit_exceeded"},
    {ApiError::kHeadersTooLarge, 431, "headers_too_large"},
    {ApiError::kServiceUnavailable, 503, "service_unavailable"},
    {ApiError::kInternalError, 500, "internal_error"},
};

TEST_CASE("every error has the published status and code, and a message for people") {
  REQUIRE(ApiErrors().size() == std::size(kRows));
  for (const auto& row : kRows) {
    CAPTURE(row.code);
    Response response;
    RespondWithError(row.error, "req_12345678", nullptr, response);
    CHECK(response.status == row.status);
    CHECK(CodeOf(response.error) == row.code);
    CHECK(response.body.starts_with(std::string(R"({"error":{"code":")") + row.code + '"'));
    CHECK(response.body.ends_with(R"("request_id":"req_12345678"}})"));
    CHECK(response.body.find("details") == std::string::npos);
    CHECK(ReasonPhrase(row.status) != "Unknown");
    CHECK(ApiErrors()[static_cast<size_t>(row.error)].message.ends_with("."));
  }
}

TEST_CASE("405 names the methods, 503 says when to come back") {
  Response response;
  RespondWithError(ApiError::kMethodNotAllowed, "req_12345678", nullptr, response);
  CHECK(response.headers == "Allow: GET, HEAD\r\n");
  response.Clear();
  RespondWithError(ApiError::kServiceUnavailable, "req_12345678", nullptr, response);
  CHECK(response.headers == "Retry-After: 1\r\n");
}

TEST_CASE("what is no error has the code ok") {
  CHECK(CodeOf(std::nullopt) == "ok");
  CHECK(CodeOf(Response{}.error) == "ok");
}

TEST_CASE("an error over the limit names the window") {
  Window window;
  window.name = "day";
  window.limit = 1000;
  window.reset = 1779010931;
  Response response;
  RespondWithError(ApiError::kRateLimitExceeded, "req_12345678", &window, response);
  CHECK(response.body.find(R"("details":{"limit":1000,"window":"day","reset":1779010931})") !=
        std::string::npos);
}

}  // namespace
}  // namespace keys
