#include "handler/auth/session_cookie.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

const SessionCookieNames kNames{"sb-access-token", "sb-ref-auth-token"};

// Every candidate in order, refusals by their names in brackets, separated by spaces.
std::string All(std::string_view header, const SessionCookieNames& names = kNames) {
  std::string scratch = "left over from the request before";
  SessionCandidates candidates(header, names, scratch);
  std::string all;
  for (int number = 0; const auto candidate = candidates.Next(); ++number) {
    if (number > 0) all += " ";
    if (const auto* const refusal = std::get_if<TokenRefusal>(&*candidate)) {
      all += "[" + std::string(Describe(*refusal)) + "]";
    } else {
      all += std::get<std::string_view>(*candidate);
    }
  }
  return all;
}

std::string Encoded(std::string_view json) {
  return "base64-" + test::EncodeBase64url(json);
}

// The cookies of @supabase/ssr, cut into chunks of `size`.
std::vector<std::string> Chunks(const std::string& value, size_t size) {
  std::vector<std::string> cookies;
  for (size_t at = 0; at < value.size(); at += size) {
    cookies.push_back("sb-ref-auth-token." + std::to_string(cookies.size()) + "=" +
                      value.substr(at, size));
  }
  return cookies;
}

std::string Joined(const std::vector<std::string>& cookies) {
  std::string header;
  for (const std::string& cookie : cookies) header += cookie + "; ";
  return header;
}

constexpr std::string_view kSession =
    R"({"access_token":"aaa.bbb.ccc","token_type":"bearer","expires_in":3600,)"
    R"("refresh_token":"r","user":{"id":"u","access_token":"not.this.one","n":[1,{"x":null}]}})";

// A session of this token, as the whole cookie holds it.
std::string Session(std::string_view token) {
  return Encoded("{\"access_token\":\"" + std::string(token) + "\"}");
}

TEST_CASE("candidates come in their order, the first two of each name") {
  const std::string token = "sb-access-token=", whole = "sb-ref-auth-token=";
  CHECK(All(token + "a") == "a");
  CHECK(All(token + "a; " + token + "b; " + token + "c") == "a b");
  CHECK(All(whole + Session("w") + "; " + token + "a") == "a w");
  CHECK(All(whole + "broken; " + token + "a") == "a [cookie_session]");
  CHECK(All(whole + Session("w") + "; " + token + "; " + whole + Session("v")) == " w v");
  CHECK(All(whole + Session("w") + "; " + whole + Session("v") + "; " + whole + Session("u")) ==
        "w v");
  CHECK(All("") == "");
  CHECK(All("a=b") == "");
  // No more than four cost a signature.
  CHECK(All(token + "a; " + token + "b; " + whole + Session("w") + "; " + whole + Session("v") +
            "; sb-ref-auth-token.0=" + Session("c") + "; sb-ref-auth-token.0=" + Session("d")) ==
        "a b w c");
}

TEST_CASE("the supabase cookie is understood only where it is configured") {
  const std::string whole = "sb-ref-auth-token=" + Encoded(kSession);
  CHECK(All(whole) == "aaa.bbb.ccc");
  CHECK(All(whole, {"sb-access-token", ""}) == "");
  CHECK(All(whole + "; =x; .0=y", {"sb-access-token", ""}) == "");
  CHECK(All(whole, {"sb-access-token", "sb-other-auth-token"}) == "");
}

TEST_CASE("chunks of any size and order give the token") {
  const std::string value = Encoded(kSession);
  for (const size_t size : {value.size(), value.size() / 2 + 1, size_t{32}}) {
    CAPTURE(size);
    std::vector<std::string> cookies = Chunks(value, size);
    CHECK(All(Joined(cookies)) == "aaa.bbb.ccc");
    std::swap(cookies.front(), cookies.back());
    CHECK(All("a=1; " + Joined(cookies)) == "aaa.bbb.ccc");
  }
}

TEST_CASE("chunks end at the first that is absent or empty, whatever lies behind") {
  const std::string value = Encoded(kSession);
  const std::vector<std::string> three = Chunks(value, value.size() / 3 + 1);
  REQUIRE(three.size() == 3);
  const std::string good = Joined(three);
  CHECK(All(good) == "aaa.bbb.ccc");
  for (const std::string number :
       {"4", "5", "31", "32", "99", "100", "99999999999999999999999", "18446744073709551616"}) {
    CAPTURE(number);
    CHECK(All(good + "sb-ref-auth-token." + number + "=stale") == "aaa.bbb.ccc");
  }
  CHECK(All(good + "sb-ref-auth-token.3=; sb-ref-auth-token.4=stale") == "aaa.bbb.ccc");
  // One more that follows belongs to it.
  CHECK(All(good + "sb-ref-auth-token.3=%") == "[cookie_encoding]");
  // A missing one leaves half a text.
  CHECK(All(Joined({three[0], three[1]})) == "[cookie_session]");
  CHECK(All(Joined({three[0], three[2]})) == "[cookie_session]");
  CHECK(All(Joined({three[0], "sb-ref-auth-token.1=", three[2]})) == "[cookie_session]");
  CHECK(All(Joined({three[1], three[2]})) == "[cookie_chunks]");
  CHECK(All(three[1]) == "[cookie_chunks]");
  CHECK(All("sb-ref-auth-token.0=; " + three[1]) == "[cookie_chunks]");
  // Emptied ones are what a sign-out leaves.
  CHECK(All("sb-ref-auth-token.0=; sb-ref-auth-token.1=") == "");
  CHECK(All("sb-ref-auth-token=") == "");
}

TEST_CASE("the whole cookie comes before chunks, unless it is empty") {
  const std::string whole = "sb-ref-auth-token=", chunk = "; sb-ref-auth-token.0=" + Session("c");
  CHECK(All(whole + Session("w") + chunk) == "w c");
  CHECK(All(whole + chunk) == "c");
  CHECK(All(whole + "!" + chunk) == "[cookie_session] c");
  CHECK(All(whole + chunk + "; " + whole + Session("w")) == "c w");
}

TEST_CASE("two generations of chunks are two candidates, also where one is longer") {
  const std::string live = Encoded(kSession);
  const std::string pad(200, 'p');
  const std::string other = Encoded(R"({"access_token":"old.old.old","pad":")" + pad + pad + "\"}");
  const auto header = [](const std::string& first, const std::string& second, size_t size) {
    return Joined(Chunks(first, size)) + Joined(Chunks(second, size));
  };
  const size_t third = live.size() / 3 + 1;
  CHECK(All(header(live, live, third)) == "aaa.bbb.ccc aaa.bbb.ccc aaa.bbb.ccc");
  REQUIRE(Chunks(other, third).size() > 3);
  CHECK(All(header(other, live, third)).starts_with("old.old.old aaa.bbb.ccc"));
  // The longer one's rest has no second occurrence.
  CHECK(All(header(live, other, third)) == "[cookie_session] [cookie_session] old.old.old");
}

TEST_CASE("names that only resemble a chunk are neighbours") {
  const std::string whole = "sb-ref-auth-token.0=" + Encoded(kSession);
  for (const std::string name :
       {"sb-ref-auth-token.", "sb-ref-auth-token.00", "sb-ref-auth-token.01",
        "sb-ref-auth-token.1x", "sb-ref-auth-token.-1", "sb-ref-auth-token.+1",
        "sb-ref-auth-token-code-verifier", "sb-ref-auth-tokens.1", "SB-REF-AUTH-TOKEN.1"}) {
    CAPTURE(name);
    CHECK(All(name + "=x; " + whole) == "aaa.bbb.ccc");
    CHECK(All(name + "=x") == "");
  }
}

TEST_CASE("a session cookie is bounded in length") {
  const auto of_length = [](size_t length) {
    std::string json = R"({"access_token":"t","pad":")";
    const size_t bytes = (length - 7) / 4 * 3;
    json += std::string(bytes - json.size() - 2, 'p') + "\"}";
    return "sb-ref-auth-token=" + Encoded(json);
  };
  CHECK(All(of_length(kMaxSessionCookieLength - 1)) == "t");
  CHECK(All(of_length(kMaxSessionCookieLength + 8)) == "[token_too_long]");
}

TEST_CASE("a session is JSON, in base64url or as it is, with an access_token") {
  struct Row {
    std::string_view what;
    std::string value;
    std::string found;
  };
  const std::string good = R"({"access_token":"a.b.c"})";
  const Row rows[] = {
      {"base64url", Encoded(good), "a.b.c"},
      {"raw JSON", good, "a.b.c"},
      {"raw JSON, percent-encoded", "%7B%22access_token%22%3a%22a.b.c%22%7D", "a.b.c"},
      {"raw JSON, a name in another script",
       R"({"access_token":"a.b.c","n":"%D0%97%D0%BE%D1%8F%20%F0%9F%A6%8A"})", "a.b.c"},
      {"raw JSON with a percent sign", R"({"access_token":"a.b.c","n":"100%"})", "a.b.c"},
      {"raw JSON with escapes that are no UTF-8", R"({"access_token":"a.b.c","n":"%ff%C0%AF"})",
       "a.b.c"},
      {"raw JSON, half percent-encoded", R"(%7B"access_token":"a.b.c","n":"%2"})",
       "[cookie_session]"},
      {"base64url, percent-encoded", "base64%2D" + test::EncodeBase64url(good), "a.b.c"},
      {"an escape in the token", Encoded(R"({"access_token":"\u0061.b.c"})"), "a.b.c"},
      {"white space in it", "base64-eyJhY2Nlc3Nf dG9rZW4i%20OiJhLmIuYyJ9", "a.b.c"},
      {"spare bits", "base64-eyJhY2Nlc3NfdG9rZW4iOiJhLmIuYyJ9AA", "[cookie_session]"},
      {"a digit that makes no byte", "base64-eyJhY2Nlc3NfdG9rZW4iOiJhLmIuYyJ9A", "a.b.c"},
      {"spare bits set", "base64-" + test::EncodeBase64url(good + " ").replace(33, 1, "B"),
       "a.b.c"},
      {"prefix alone", "base64-", "[cookie_session]"},
      {"no prefix", test::EncodeBase64url(good), "[cookie_session]"},
      {"prefix in capitals", "BASE64-" + test::EncodeBase64url(good), "[cookie_session]"},
      {"another prefix", "base64url-" + test::EncodeBase64url(good), "[cookie_session]"},
      {"padding", Encoded(good + " ") + "=", "[cookie_encoding]"},
      {"standard base64", "base64-" + test::EncodeBase64url(good) + "+/", "[cookie_encoding]"},
      {"quoted", "\"" + Encoded(good) + "\"", "[cookie_session]"},
      {"a token instead", "base64-a.b.c", "[cookie_encoding]"},
      {"not JSON", Encoded("access_token"), "[cookie_session]"},
      {"cut JSON", Encoded(good.substr(0, good.size() - 1)), "[cookie_session]"},
      {"more after it", Encoded(good + "{}"), "[cookie_session]"},
      {"the array of old helpers", Encoded(R"(["a.b.c","r"])"), "[cookie_session]"},
      {"no access_token", Encoded(R"({"refresh_token":"r"})"), "[cookie_session]"},
      {"one of another case", Encoded(R"({"Access_Token":"a.b.c"})"), "[cookie_session]"},
      {"one further down", Encoded(R"({"user":{"access_token":"a.b.c"}})"), "[cookie_session]"},
      {"null", Encoded(R"({"access_token":null})"), "[cookie_session]"},
      {"a number", Encoded(R"({"access_token":5})"), "[cookie_session]"},
      {"an array", Encoded(R"({"access_token":["a.b.c"]})"), "[cookie_session]"},
      {"two of them: the last", Encoded(R"({"access_token":"d.e.f","access_token":"a.b.c"})"),
       "a.b.c"},
      {"two of them, the last no string", Encoded(R"({"access_token":"a.b.c","access_token":1})"),
       "[cookie_session]"},
      {"invalid UTF-8", Encoded("{\"access_token\":\"a.b.c\",\"x\":\"\xff\"}"), "[cookie_session]"},
      {"a NUL behind", Encoded(good + std::string("\0x", 2)), "[cookie_session]"},
      {"nested deeply",
       Encoded(R"({"access_token":"a.b.c","x":)" + std::string(5000, '[') + std::string(5000, ']') +
               "}"),
       "[cookie_session]"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(All("sb-ref-auth-token=" + row.value) == row.found);
    CHECK(All("sb-ref-auth-token.0=" + row.value) == row.found);
  }
}

}  // namespace
}  // namespace keys
