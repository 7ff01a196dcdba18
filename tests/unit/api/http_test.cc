#include "handler/api/http.h"

#include <doctest/doctest.h>

#include <set>

#include "handler/api/api_error.h"

namespace keys {
namespace {

TEST_CASE("a CGI response is complete: status, length, the headers of every response, body") {
  Response response;
  response.headers = "Allow: GET, HEAD\r\n";
  response.body = "{}";
  std::string out;
  AppendCgiResponse(response, "req_0123456789ab", false, out);
  CHECK(out ==
        "Status: 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        "Cache-Control: no-store\r\nVary: Cookie\r\nX-Content-Type-Options: nosniff\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\nX-Request-Id: req_0123456789ab\r\n"
        "Allow: GET, HEAD\r\n\r\n{}");
}

TEST_CASE("HEAD gets the headers of the GET, its length too, and no body") {
  Response response;
  response.body = "{\"a\":1}";
  std::string get;
  std::string head;
  AppendCgiResponse(response, "req_0123456789ab", false, get);
  AppendCgiResponse(response, "req_0123456789ab", true, head);
  CHECK(get == head + response.body);
}

TEST_CASE("an error names its code for the access log") {
  Response response;
  response.status = 401;
  response.error = ApiError::kInvalidSession;
  std::string out;
  AppendCgiResponse(response, "req_0123456789ab", false, out);
  CHECK(out.find("Status: 401 Unauthorized\r\n") == 0);
  CHECK(out.find("\r\nX-Keys-Error: invalid_session\r\n") != std::string::npos);
}

TEST_CASE("a request id is repeated only when it has the form") {
  struct Row {
    std::string text;
    bool good;
  };
  const Row rows[] = {
      {"req_0123456789abcdef0123456789abcdef", true},
      {"req_A-b_9xyz", true},
      {"req_" + std::string(64, 'a'), true},
      {"req_" + std::string(65, 'a'), false},
      {"req_short", false},
      {"0123456789abcdef", false},
      {"", false},
      {"req_with space", false},
      {"req_quote\"quote", false},
      {"req_line\r\nX-Evil: 1", false},
      {std::string("req_nul\0nulnul", 14), false},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    CHECK(IsRequestId(row.text) == row.good);
  }
}

TEST_CASE("ids that are made have the form and differ") {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = MakeRequestId();
    CHECK(IsRequestId(id));
    seen.insert(id);
  }
  CHECK(seen.size() == 1000);
}

TEST_CASE("a trace id is what W3C Trace Context says, and nothing else") {
  const std::string good = "4bf92f3577b34da6a3ce929d0e0e4736";
  CHECK(IsTraceId(good));
  CHECK(IsTraceId("00000000000000000000000000000001"));
  for (const std::string& bad :
       {std::string(), std::string(32, '0'), good.substr(1), good + "0",
        std::string("4BF92F3577B34DA6A3CE929D0E0E4736"),
        std::string("4bf92f3577b34da6a3ce929d0e0e473g"),
        std::string("4bf92f3577b34da6a3ce929d0e0e473\n"), good.substr(1) + '\0'}) {
    CAPTURE(bad);
    CHECK_FALSE(IsTraceId(bad));
  }
}

}  // namespace
}  // namespace keys
