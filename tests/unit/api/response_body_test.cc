#include "handler/api/response_body.h"

#include <doctest/doctest.h>

namespace keys {
namespace {

DatabaseTime At(int64_t unix_seconds, int64_t microseconds = 0) {
  return DatabaseTime(std::chrono::seconds(unix_seconds)) + std::chrono::microseconds(microseconds);
}

// The first key of the contract's example.
ApiKey Example() {
  ApiKey key;
  key.id = *ParseUuid("00000000-0000-4000-8000-000000000123");
  key.key_prefix = "sk_live_zIc8";
  key.name = "Production SIEM";
  key.tier = "pro";
  key.scopes = {"read:iocs", "read:articles", "read:articles:export", "read:stix"};
  key.requests_per_minute = 1000;
  key.requests_per_day = 1000000;
  key.total_requests = 142587;
  key.last_used_at = At(1779010931);
  key.created_at = At(1768471200);
  return key;
}

bool Write(const std::vector<ApiKey>& keys, std::string& body) {
  const KeyAt key_at = [&](size_t position) { return &keys[position]; };
  return WriteKeyList(keys.size(), key_at, body);
}

TEST_CASE("a key has every field of the contract, in its order") {
  std::string body;
  CHECK(Write({Example()}, body));
  CHECK(body ==
        R"({"data":[{"id":"00000000-0000-4000-8000-000000000123","key_prefix":"sk_live_zIc8",)"
        R"("key_preview":"sk_live_••••••••","name":"Production SIEM","tier":"pro",)"
        R"("scopes":["read:iocs","read:articles","read:articles:export","read:stix"],)"
        R"("rate_limit_per_minute":1000,"rate_limit_per_day":1000000,"total_requests":142587,)"
        R"("last_used_at":"2026-05-17T09:42:11Z","created_at":"2026-01-15T10:00:00Z",)"
        R"("expires_at":null,"revoked_at":null}],"meta":{"total":1}})");
}

TEST_CASE("no keys: an empty array") {
  std::string body = "left over";
  CHECK(Write({}, body));
  CHECK(body == R"({"data":[],"meta":{"total":0}})");
}

TEST_CASE("any text a name can hold is escaped") {
  ApiKey key = Example();
  key.name = "\"q\" \\ / \n \x01 <b> \xE2\x80\xAE \xF0\x9F\x94\x91";
  std::string body;
  CHECK(Write({key}, body));
  CHECK(body.find("\"name\":\"\\\"q\\\" \\\\ / \\n \\u0001 <b> \xE2\x80\xAE \xF0\x9F\x94\x91\"") !=
        std::string::npos);
}

TEST_CASE("each byte that JSON escapes is escaped, wherever it stands") {
  for (int byte = 0; byte < 0x80; ++byte) {
    for (const size_t place : {size_t{0}, size_t{6}, size_t{7}, size_t{8}, size_t{17}}) {
      CAPTURE(byte);
      CAPTURE(place);
      std::string text(18, '~');
      text[place] = static_cast<char>(byte);
      ApiKey key = Example();
      key.name = text;
      std::string body;
      CHECK(Write({key}, body));
      const bool is_escaped = byte < ' ' || byte == '"' || byte == '\\';
      CHECK((body.find('"' + text + '"') == std::string::npos) == is_escaped);
    }
  }
}

TEST_CASE("a text that is not UTF-8 is not answered") {
  ApiKey key = Example();
  for (const char* const name : {"\xFF", "\xC0\x80", "\xED\xA0\x80", "cut \xE2\x80"}) {
    CAPTURE(name);
    key.name = name;
    std::string body;
    CHECK_FALSE(Write({key}, body));
  }
  std::string body;
  CHECK(Write({Example()}, body));  // and the writer is as good as before
}

TEST_CASE("a key that cannot be read is not answered") {
  std::string body;
  const KeyAt key_at = [](size_t) { return nullptr; };
  CHECK_FALSE(WriteKeyList(1, key_at, body));
}

TEST_CASE("times are cut to the second, in UTC") {
  struct Row {
    DatabaseTime time;
    const char* text;
  };
  const Row rows[] = {
      {At(0), "1970-01-01T00:00:00Z"},          {At(-1), "1969-12-31T23:59:59Z"},
      {At(951782399), "2000-02-28T23:59:59Z"},  {At(951782400, 999999), "2000-02-29T00:00:00Z"},
      {At(4102444799), "2099-12-31T23:59:59Z"},
  };
  for (const Row& row : rows) CHECK(FormatTime(row.time) == row.text);
}

TEST_CASE("errors, with and without the window that was exceeded") {
  std::string body;
  CHECK(WriteError("invalid_session", "Sign in.", "req_1", nullptr, body));
  CHECK(body ==
        R"({"error":{"code":"invalid_session","message":"Sign in.","request_id":"req_1"}})");
  const Window over{.name = "minute", .length_s = 60, .limit = 10, .reset = 1795480042};
  CHECK(WriteError("rate_limit_exceeded", "Wait.", "req_1", &over, body));
  CHECK(body ==
        R"({"error":{"code":"rate_limit_exceeded","message":"Wait.",)"
        R"("details":{"limit":10,"window":"minute","reset":1795480042},"request_id":"req_1"}})");
}

TEST_CASE("a long list is written whole and its memory given back") {
  const std::vector<ApiKey> keys(10000, Example());
  std::string body;
  CHECK(Write(keys, body));
  CHECK(body.size() > 3000000);
  CHECK(body.ends_with(R"("meta":{"total":10000}})"));
}

}  // namespace
}  // namespace keys
