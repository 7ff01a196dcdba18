#include "handler/api/list_keys.h"

#include <doctest/doctest.h>

#include <string>

#include "handler/auth/jwk_set.h"

namespace keys {
namespace {

struct Fixture {
  Metrics metrics{""};
  Config config;
  LoadedKeys keys = JwkSet::Load(std::nullopt, "a-secret-of-32-bytes-or-a-few-more");
  ListKeys list_keys{config, metrics};
  RequestContext context;
  Response response;

  bool Begin(const Request& request) {
    response.Clear();
    return list_keys.Authorize(request, *keys.set, Moment::Now(), context, response);
  }
};

TEST_CASE("what is refused before the database is asked, in its order") {
  struct Row {
    const char* what;
    Request request;
    int status;
    const char* code;
  };
  const Row rows[] = {
      {"POST, cross-site, no cookie: the method first",
       {.method = "POST", .sec_fetch_site = "cross-site"},
       405,
       "method_not_allowed"},
      {"no method at all", {}, 405, "method_not_allowed"},
      {"methods are case-sensitive", {.method = "get"}, 405, "method_not_allowed"},
      {"cross-site before the cookie",
       {.method = "GET", .cookie = "sb-access-token=x", .sec_fetch_site = "cross-site"},
       403,
       "cross_site_request"},
      {"no cookie", {.method = "GET"}, 401, "missing_api_key"},
      {"another cookie", {.method = "GET", .cookie = "a=b"}, 401, "missing_api_key"},
      {"an API key instead", {.method = "GET", .has_api_key = true}, 401, "missing_api_key"},
      {"no token in it",
       {.method = "GET", .cookie = "sb-access-token=x", .sec_fetch_site = "same-origin"},
       401,
       "invalid_session"},
      {"an empty cookie", {.method = "HEAD", .cookie = "sb-access-token="}, 401, "invalid_session"},
  };
  Fixture story;
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK_FALSE(story.Begin(row.request));
    CHECK(story.response.status == row.status);
    CHECK(CodeOf(story.response.error) == row.code);
    CHECK(story.response.body.find(row.code) != std::string::npos);
    CHECK(story.response.body.find(story.context.request_id) != std::string::npos);
    const bool challenged = story.response.headers.find("WWW-Authenticate: Cookie ") == 0;
    CHECK(challenged == (row.status == 401));
    CHECK(story.response.headers.find("RateLimit") == std::string::npos);
  }
}

TEST_CASE("a request id of nginx is kept, any other replaced") {
  Fixture story;
  story.Begin({.method = "GET", .request_id = "req_0123456789abcdef"});
  CHECK(story.context.request_id == "req_0123456789abcdef");
  story.Begin({.method = "GET", .request_id = "<script>"});
  CHECK(IsRequestId(story.context.request_id));
}

TEST_CASE("a database that does not answer is 503, a fault of ours 500, neither tells why") {
  struct Row {
    DatabaseFault fault;
    int status;
    const char* retry_after;
  };
  const Row rows[] = {{DatabaseFault::kUnavailable, 503, "Retry-After: 1\r\n"},
                      {DatabaseFault::kTimeout, 503, "Retry-After: 1\r\n"},
                      {DatabaseFault::kInternal, 500, ""}};
  Fixture story;
  for (const Row& row : rows) {
    CAPTURE(row.status);
    story.Begin({.method = "GET"});
    story.response.Clear();
    story.list_keys.Respond(nullptr, row.fault, "42P01", Moment::Now(), story.context,
                            story.response);
    CHECK(story.response.status == row.status);
    CHECK(story.response.headers == row.retry_after);
    CHECK(story.response.body.find("42P01") == std::string::npos);
  }
}

}  // namespace
}  // namespace keys
