// The way of one request through the handler without sockets, N times, for valgrind to count:
// cookie -> session (its token remembered), row -> body, the whole CGI response.
//
//   pure-path N
//
// Clock, token and rows are fixed, so that what is counted depends on the code alone.
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
#include "tests/support/list_rows.h"

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

// What sql/list_keys.sql answers for a user with three keys.
keys::Result Answer() {
  const auto at = [](int64_t unix_time) {
    return keys::DatabaseTime(std::chrono::seconds(unix_time));
  };
  const keys::Uuid user = *keys::ParseUuid("00000001-0000-4000-8000-000000000001");
  std::vector<keys::ListRow> rows = {
      keys::TierRow("free", 10, 1000, at(kNow)), keys::TierRow("pro", 1000, 1'000'000, at(kNow)),
      keys::UserRow(user, 1, {1000, 17, at(kNow + 42)}, {1'000'000, 4711, at(kNow + 40'000)})};
  for (uint64_t key = 0; key < 3; ++key) {
    keys::ListRow& row = rows.emplace_back(keys::KeyRow(user));
    row[keys::kId] =
        keys::BigEndian(0x1234'5678'9abc'4def, 8) + keys::BigEndian(0x8000'0000'0000'0000 + key, 8);
    row[keys::kKeyPrefix] = "sk_live_aB3x";
    row[keys::kName] = "Production key";
    row[keys::kTier] = "pro";
    row[keys::kScopes] = keys::Texts({"read:iocs", "read:articles", "read:stix"});
    row[keys::kTotalRequests] = keys::BigEndian(142'587 + key, 8);
    row[keys::kLastUsedAt] = keys::Time(at(kNow - 3600));
    row[keys::kCreatedAt] = keys::Time(at(kNow - 31'000'000));
    if (key == 1) row[keys::kExpiresAt] = keys::Time(at(kNow + 7'000'000));
  }
  return keys::MakeResult(rows);
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
  const keys::Result result = Answer();

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
