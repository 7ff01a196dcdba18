// The way of one request through the handler without sockets, N times, for valgrind to count:
// cookie -> session (its token remembered), row -> body, the whole CGI response.
//
//   pure-path N
//
// Clock, token and rows are fixed, so that what is counted depends on the code alone.
#include <libpq-fe.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "handler/api/http.h"
#include "handler/api/list_keys.h"
#include "handler/api/metrics.h"
#include "handler/api/response_body.h"
#include "handler/auth/jwk_set.h"
#include "handler/database/lookup_batcher.h"

namespace {

constexpr std::string_view kSecret =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
constexpr int64_t kNow = 1'790'000'000;  // Unix time

std::string Base64url(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

// A token of the usual length and claims.
std::string MakeToken() {
  const std::string claims =
      R"({"iss":"https://local.example/auth/v1","sub":"00000001-0000-4000-8000-000000000001",)"
      R"("aud":"authenticated","exp":1790003600,"iat":1790000000,"email":"someone@example.com",)"
      R"("phone":"","app_metadata":{"provider":"email","providers":["email"]},)"
      R"("user_metadata":{"email":"someone@example.com","email_verified":true,)"
      R"("full_name":"Some One of Somewhere","phone_verified":false,)"
      R"("sub":"00000001-0000-4000-8000-000000000001"},"role":"authenticated","aal":"aal1",)"
      R"("amr":[{"method":"password","timestamp":1790000000}],)"
      R"("session_id":"5e550000-0000-4000-8000-000000000001","is_anonymous":false})";
  const std::string input = Base64url(R"({"alg":"HS256","typ":"JWT"})") + "." + Base64url(claims);
  std::array<unsigned char, 32> mac{};
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(input.data()), input.size(), mac.data(), nullptr);
  return input + "." + Base64url({reinterpret_cast<const char*>(mac.data()), mac.size()});
}

std::string BigEndian(uint64_t value, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[size - 1 - i] = static_cast<char>(value >> 8 * i);
  return bytes;
}

// timestamptz: microseconds since 2000-01-01.
std::string Time(int64_t unix_time) {
  return BigEndian(static_cast<uint64_t>((unix_time - 946'684'800) * 1'000'000), 8);
}

// An array of one dimension, of elements in their binary form.
std::string Array(uint32_t type, const std::vector<std::string>& elements) {
  std::string bytes = BigEndian(1, 4) + BigEndian(0, 4) + BigEndian(type, 4) +
                      BigEndian(elements.size(), 4) + BigEndian(1, 4);
  for (const std::string& element : elements) bytes += BigEndian(element.size(), 4) + element;
  return bytes;
}

// What sql/list_keys.sql answers for a user with three keys, in binary format.
keys::Result MakeResult() {
  using Row = std::vector<std::optional<std::string>>;
  constexpr size_t kColumns = 19;
  constexpr uint32_t kTextType = 25;
  const auto tier = [](const char* name, uint32_t minute, uint32_t day) {
    Row row(kColumns);
    row[2] = BigEndian(minute, 4);
    row[5] = BigEndian(day, 4);
    row[8] = Time(kNow);
    row[12] = name;
    return row;
  };
  std::vector<Row> rows = {tier("free", 10, 1000), tier("pro", 1000, 1'000'000)};
  for (uint64_t key = 0; key < 3; ++key) {
    rows.push_back({
        BigEndian(0x0000'0001'0000'4000, 8) + BigEndian(0x8000'0000'0000'0001, 8),
        BigEndian(1, 4),
        BigEndian(1000, 4),
        BigEndian(17, 4),
        Time(kNow + 42),
        BigEndian(1'000'000, 4),
        BigEndian(4711, 4),
        Time(kNow + 40'000),
        std::nullopt,
        BigEndian(0x1234'5678'9abc'4def, 8) + BigEndian(0x8000'0000'0000'0000 + key, 8),
        "sk_live_aB3x",
        "Production key",
        "pro",
        Array(kTextType, {"read:iocs", "read:articles", "read:stix"}),
        BigEndian(142'587 + key, 8),
        Time(kNow - 3600),
        Time(kNow - 31'000'000),
        key == 1 ? std::optional(Time(kNow + 7'000'000)) : std::nullopt,
        std::nullopt,
    });
  }
  PGresult* const result = PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK);
  std::vector<PGresAttDesc> columns(kColumns);
  char name[] = "column";
  for (PGresAttDesc& column : columns) {
    column = {};
    column.name = name;
    column.format = 1;
  }
  PQsetResultAttrs(result, static_cast<int>(columns.size()), columns.data());
  for (size_t number = 0; number < rows.size(); ++number) {
    for (size_t column = 0; column < kColumns; ++column) {
      auto& value = rows[number][column];
      PQsetvalue(result, static_cast<int>(number), static_cast<int>(column),
                 value ? value->data() : nullptr, value ? static_cast<int>(value->size()) : -1);
    }
  }
  return keys::Result(result);
}

int Fail(const char* what) {
  std::fprintf(stderr, "pure-path: %s\n", what);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t times = argc == 2 ? std::atoll(argv[1]) : 0;
  if (times < 1) return Fail("usage: pure-path N");

  keys::Config config;
  config.token.issuers = {"https://local.example/auth/v1"};
  keys::Metrics metrics("");
  keys::ListKeys list_keys(config, metrics);
  const keys::LoadedKeys loaded = keys::JwkSet::Load(std::nullopt, kSecret);
  if (loaded.set == nullptr) return Fail("the secret does not load");

  const std::string cookie = "theme=dark; sb-access-token=" + MakeToken() + "; consent=1";
  keys::Request request;
  request.method = "GET";
  request.cookie = cookie;
  request.sec_fetch_site = "same-origin";
  request.request_id = "req_0123456789abcdef0123456789abcdef";
  const keys::Moment now{keys::UnixTime(std::chrono::seconds(kNow)), keys::Clock::now()};
  const keys::Result result = MakeResult();

  keys::RequestContext context;
  keys::KeyLists lists;
  std::string body;
  keys::Response response;
  std::string out;
  for (int64_t i = 0; i < times; ++i) {
    response.Clear();
    out.clear();
    if (!list_keys.Authorize(request, *loaded.set, now, context, response)) return Fail("refused");
    if (!lists.Read(result) || lists.lists().size() != 1) return Fail("not read");
    const keys::KeyList& list = lists.lists()[0];
    const auto key_at = [&](size_t position) { return lists.Key(list, position); };
    if (!keys::WriteKeyList(list.keys, key_at, body)) return Fail("not written");
    list_keys.Respond({.list = &list}, 0, body, now, context, response);
    keys::AppendCgiResponse(response, context.request_id, context.head_only, out);
    if (response.status != 200 || context.cache_hit != (i > 0)) return Fail("not the usual way");
  }
  std::printf("%zu bytes\n", out.size());
  return 0;
}
