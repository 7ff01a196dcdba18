#include "handler/api/list_keys.h"

#include <doctest/doctest.h>

#include <string>

#include "handler/auth/jwk_set.h"
#include "tests/unit/auth/session_claims.h"
#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

struct Fixture {
  Metrics metrics{""};
  Config config;
  const test::Signer& signer = test::Signer::Of(Algorithm::kHs256);
  LoadedKeys keys = JwkSet::Load(std::nullopt, signer.secret());
  ListKeys list_keys{config, metrics};
  RequestContext context;
  Response response;
  Moment now{test::At(test::kNow), Clock::time_point(std::chrono::hours(1))};
  std::string cookie =
      "sb-access-token=" + signer.Token(R"({"alg":"HS256"})", test::GoodClaims().Text());
  Request good{.method = "GET", .cookie = cookie};

  bool Authorize(const Request& request) {
    response.Clear();
    return list_keys.Authorize(request, *keys.set, now, context, response);
  }
  void SignIn() { REQUIRE(Authorize(good)); }
  void Respond(LookupResult result, size_t position = 0, std::string_view body = {}) {
    if (result.sent_at == Clock::time_point{}) result.sent_at = now.steady;
    response.Clear();
    list_keys.Respond(result, position, body, now, context, response);
  }
  // What a lookup finds for the user of `good`, a free one, whose windows have just begun.
  KeyList Found(int32_t granted) const {
    KeyList list;
    list.user = context.user;
    list.granted = granted;
    list.now = DatabaseTime(std::chrono::seconds(test::kNow));
    list.minute = {10, granted, list.now + std::chrono::seconds(60)};
    list.day = {1000, granted, list.now + std::chrono::seconds(86400)};
    return list;
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
  Fixture fixture;
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK_FALSE(fixture.Authorize(row.request));
    CHECK(fixture.response.status == row.status);
    CHECK(CodeOf(fixture.response.error) == row.code);
    CHECK(fixture.response.body.find(row.code) != std::string::npos);
    CHECK(fixture.response.body.find(fixture.context.request_id) != std::string::npos);
    const bool challenged = fixture.response.headers.find("WWW-Authenticate: Cookie ") == 0;
    CHECK(challenged == (row.status == 401));
    CHECK(fixture.response.headers.find("RateLimit") == std::string::npos);
  }
}

TEST_CASE("a token over 16 KB is 431, and the message names the remedy") {
  Fixture fixture;
  const std::string longest = "sb-access-token=" + std::string(kMaxTokenLength, 'x');
  CHECK_FALSE(fixture.Authorize({.method = "GET", .cookie = longest}));
  CHECK(fixture.response.status == 401);
  const std::string too_long = longest + "x";
  CHECK_FALSE(fixture.Authorize({.method = "GET", .cookie = too_long}));
  CHECK(fixture.response.status == 431);
  CHECK(fixture.response.error == ApiError::kHeadersTooLarge);
  CHECK(fixture.response.body.find("user_metadata") != std::string::npos);
  CHECK(fixture.response.headers.find("WWW-Authenticate") == std::string::npos);
  CHECK(fixture.context.rule == "token_too_long");
}

TEST_CASE("a request id of nginx is kept, any other replaced") {
  Fixture fixture;
  fixture.Authorize({.method = "GET", .request_id = "req_0123456789abcdef"});
  CHECK(fixture.context.request_id == "req_0123456789abcdef");
  fixture.Authorize({.method = "GET", .request_id = "<script>"});
  CHECK(IsRequestId(fixture.context.request_id));
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
  Fixture fixture;
  for (const Row& row : rows) {
    CAPTURE(row.status);
    fixture.SignIn();
    fixture.Respond({.fault = row.fault, .sqlstate = "42P01"});
    CHECK(fixture.response.status == row.status);
    CHECK(fixture.response.headers == row.retry_after);
    CHECK(fixture.response.body.find("42P01") == std::string::npos);
  }
}

TEST_CASE("a list is 200 with the body that was written for it, and the limits of its position") {
  Fixture fixture;
  for (const char* const body : {R"({"data":[],"meta":{"total":0}})", R"({"data":[{}]})"}) {
    for (const size_t position : {0u, 1u}) {
      CAPTURE(body);
      CAPTURE(position);
      fixture.SignIn();
      const KeyList list = fixture.Found(2);
      fixture.Respond({.list = &list}, position, body);
      CHECK(fixture.response.status == 200);
      CHECK(fixture.response.content() == body);
      const char* const remaining = position == 0 ? "Remaining: 9\r\n" : "Remaining: 8\r\n";
      CHECK(fixture.response.headers.find(remaining) != std::string::npos);
      CHECK(fixture.response.headers.find("Retry-After") == std::string::npos);
    }
  }
}

TEST_CASE("a request behind those granted is 429, and the user's next one needs no lookup") {
  for (const bool is_day : {false, true}) {
    CAPTURE(is_day);
    Fixture fixture;
    fixture.SignIn();
    KeyList list = fixture.Found(1);
    (is_day ? list.day.count : list.minute.count) = is_day ? 1000 : 10;
    fixture.Respond({.list = &list}, 1, "{}");
    CHECK(fixture.response.status == 429);
    CHECK(fixture.context.rule == "over_limit");
    CHECK(fixture.response.headers.find("Retry-After: ") != std::string::npos);
    const char* const window = is_day ? R"("window":"day")" : R"("window":"minute")";
    CHECK(fixture.response.body.find(window) != std::string::npos);

    CHECK_FALSE(fixture.Authorize(fixture.good));
    CHECK(fixture.response.status == 429);
    CHECK(fixture.context.rule == "over_limit_remembered");
    fixture.now.steady += std::chrono::seconds(61);
    CHECK(fixture.Authorize(fixture.good));
  }
}

TEST_CASE("a session that has ended is 401, for a second after the lookup without another") {
  Fixture fixture;
  fixture.SignIn();
  const Clock::time_point sent_at = fixture.now.steady;
  fixture.now.steady += std::chrono::milliseconds(400);
  fixture.Respond({.sent_at = sent_at});
  CHECK(fixture.response.status == 401);
  CHECK(fixture.context.rule == "session_not_live");
  CHECK_FALSE(fixture.Authorize(fixture.good));
  CHECK(fixture.response.status == 401);
  CHECK(fixture.context.rule == "session_not_live_remembered");
  CHECK(fixture.response.headers.find("RateLimit") == std::string::npos);
  fixture.now.steady = sent_at + LookupBatcher::kRefusalValidFor;
  CHECK(fixture.Authorize(fixture.good));
}

TEST_CASE("text that is not UTF-8, or a list of another user, is 500 and shows nothing") {
  Fixture fixture;
  for (const bool is_anothers : {false, true}) {
    CAPTURE(is_anothers);
    fixture.SignIn();
    KeyList list = fixture.Found(1);
    if (is_anothers) list.user.bytes[0] ^= 1;
    fixture.Respond({.list = &list}, 0, is_anothers ? "{}" : "");
    CHECK(fixture.response.status == 500);
    CHECK(fixture.context.rule == (is_anothers ? "list_of_another_user" : "text_not_utf8"));
    CHECK(fixture.response.headers.find("RateLimit") == std::string::npos);
  }
}

}  // namespace
}  // namespace keys
