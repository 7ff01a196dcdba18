#include "handler/base/json_reader.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>

namespace keys {
namespace {

// Writes each value as `depth:parent/name=type text`.
class Writer : public JsonVisitor {
 public:
  bool Value(const JsonValue& value) override {
    static constexpr const char* kTypes[] = {"string", "number", "true", "false",
                                             "null",   "object", "array"};
    written += std::to_string(value.depth) + ":" + std::string(value.parent) + "/" +
               std::string(value.name) + "=" + kTypes[static_cast<size_t>(value.type)];
    if (!value.text.empty()) written += " " + std::string(value.text);
    written += "\n";
    return value.name != "stop";
  }
  std::string written;
};

// What the visitor saw, or "refused".
std::string Scan(std::string text, size_t unique_depth = 1) {
  Writer writer;
  const bool good = ReadJson(text.data(), text.size(), unique_depth, writer);
  return good ? writer.written : "refused";
}

bool Accepted(const std::string& text, size_t unique_depth = 1) {
  return Scan(text, unique_depth) != "refused";
}

TEST_CASE("values come in order, with their place") {
  CHECK(Scan(R"( {"a":"x","b":[1,{"c":null}],"d":{"e":true,"f":[]},"g":-1.5e+3} )") ==
        "0:/=object\n"
        "1:/a=string x\n"
        "1:/b=array\n"
        "2:b/=number 1\n"
        "2:b/=object\n"
        "3:/c=null\n"
        "1:/d=object\n"
        "2:d/e=true\n"
        "2:d/f=array\n"
        "1:/g=number -1.5e+3\n");
  CHECK(Scan("\"text\"") == "0:/=string text\n");
  CHECK(Scan("17") == "0:/=number 17\n");
}

TEST_CASE("strings are decoded in place, numbers are left as they are written") {
  CHECK(Scan(R"({"\u0061b":"\u00e9\n\ud83d\ude00\/"})") ==
        "0:/=object\n1:/ab=string \xc3\xa9\n\xf0\x9f\x98\x80/\n");
  CHECK(Scan("[0,-0,1e5,0.10,18446744073709551616,-9223372036854775809]") ==
        "0:/=array\n1:/=number 0\n1:/=number -0\n1:/=number 1e5\n1:/=number 0.10\n"
        "1:/=number 18446744073709551616\n1:/=number -9223372036854775809\n");
}

TEST_CASE("the visitor can stop the scan") {
  CHECK(Accepted(R"({"go":1})"));
  CHECK_FALSE(Accepted(R"({"stop":1})"));
}

TEST_CASE("what is not strict JSON is refused") {
  CHECK(Accepted(R"({"a":[1,2],"b":"c"})"));
  for (const std::string text : {"",
                                 " ",
                                 "{",
                                 "}",
                                 "[",
                                 "{]",
                                 "[}",
                                 "{}{}",
                                 "{},",
                                 "{} x",
                                 "[1,]",
                                 R"({"a":1,})",
                                 "{,}",
                                 R"({"a"})",
                                 R"({"a":})",
                                 R"({a:1})",
                                 R"({'a':1})",
                                 R"({"a":1 "b":2})",
                                 "[1 2]",
                                 "[01]",
                                 "[+1]",
                                 "[.5]",
                                 "[1.]",
                                 "[1e]",
                                 "[1e+]",
                                 "[-]",
                                 "[NaN]",
                                 "[Infinity]",
                                 "[0x10]",
                                 "[True]",
                                 "[nul]",
                                 "[truex]",
                                 R"(["a)",
                                 R"(["\x41"])",
                                 R"(["\u12"])",
                                 R"(["\ud800"])",
                                 R"(["\ud800\u0041"])",
                                 "[\"a\nb\"]",
                                 "[\"\x01\"]",
                                 "/* c */ {}",
                                 "{} // c",
                                 "\xef\xbb\xbf{}",
                                 "{}\xc2\xa0"}) {
    CAPTURE(text);
    CHECK_FALSE(Accepted(text));
  }
}

TEST_CASE("invalid UTF-8 is refused in names and in values") {
  CHECK(Accepted("{\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}"));
  // The first and the last character of each length, and those around the surrogates.
  for (const std::string good :
       {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK(Accepted("[\"" + good + "\"]"));
    CHECK(Accepted("[\"" + std::string(13, 'a') + good + std::string(9, 'b') + "\"]"));
  }
  for (const std::string bad :
       {"\xff", "\x80", "\xbf", "\xc3", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xf8\x88\x80\x80\x80", "\xe2\x82", "\xf0\x9f\x98", "\xf0\x9f\x98\xc0", "\xc3\xa9\xa9"}) {
    CHECK_FALSE(Accepted("[\"" + std::string(11, 'a') + bad + std::string(11, 'b') + "\"]"));
    CHECK_FALSE(Accepted("{\"a\":\"" + bad + "\"}"));
    CHECK_FALSE(Accepted("{\"" + bad + "\":\"a\"}"));
  }
}

// RapidJSON 1.1.0's own validation takes the whole sequence that a first byte announces, past the
// end.
TEST_CASE("a text that ends within a UTF-8 sequence is not read beyond its end") {
  Writer writer;
  for (const std::string text :
       {"[\"\xf0", "[\"\xf0\x9f\x98", "[\"\xe2", "[\"\xc3", "\xf0", "{\"\xf4\x8f"}) {
    const auto exact = std::make_unique<char[]>(text.size() + 1);  // for AddressSanitizer to guard
    text.copy(exact.get(), text.size());
    CHECK_FALSE(ReadJson(exact.get(), text.size(), 1, writer));
  }
}

TEST_CASE("a NUL byte is refused, an escaped one is a character") {
  CHECK_FALSE(Accepted(std::string("{}\0", 3)));
  CHECK_FALSE(Accepted(std::string("{}\0garbage", 10)));
  CHECK_FALSE(Accepted(std::string("{\"a\":\"b\0c\"}", 11)));
  CHECK(Scan(R"(["a\u0000b"])") == "0:/=array\n1:/=string " + std::string("a\0b", 3) + "\n");
}

TEST_CASE("nesting is bounded") {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK(Accepted(nested(kMaxJsonDepth)));
  CHECK_FALSE(Accepted(nested(kMaxJsonDepth + 1)));
  CHECK_FALSE(Accepted(nested(100000)));
  CHECK_FALSE(Accepted(std::string(100000, '[')));
  std::string objects;
  for (int i = 0; i < 50000; ++i) objects += "{\"a\":";
  CHECK_FALSE(Accepted(objects));
}

TEST_CASE("two members of one name are refused down to the depth that is asked for") {
  CHECK(Accepted(R"({"a":1,"b":2})"));
  CHECK_FALSE(Accepted(R"({"a":1,"b":2,"a":1})"));
  CHECK_FALSE(Accepted(R"({"a":1,"\u0061":2})"));
  CHECK_FALSE(Accepted(R"({"":1,"":2})"));
  CHECK(Accepted(R"({"a":1,"A":2})"));
  CHECK(Accepted(R"({"a":1,"a\u0000":2})"));
  CHECK(Accepted(R"({"a":{"a":{"a":1}},"b":{"a":1}})", 9));

  const std::string below = R"({"x":[{"a":1,"a":2}]})";
  CHECK(Accepted(below, 1));
  CHECK(Accepted(below, 2));
  CHECK_FALSE(Accepted(below, 3));
  CHECK_FALSE(Accepted(R"({"x":{"b":1},"y":2,"x":3})"));
  CHECK(Accepted(R"([{"a":1},{"a":1}])", 9));
}

TEST_CASE("the members of a checked object are bounded, those of others are not") {
  const auto object = [](size_t members) {
    std::string text = "{";
    for (size_t i = 0; i < members; ++i) {
      text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
    }
    return text + "}";
  };
  CHECK(Accepted(object(kMaxJsonMembers)));
  CHECK_FALSE(Accepted(object(kMaxJsonMembers + 1)));
  CHECK(Accepted("{\"a\":" + object(1000) + "}"));
  CHECK(Accepted("{\"a\":" + object(100) + ",\"b\":" + object(100) + "}", 2));
}

TEST_CASE("crafted numbers neither crash nor stall") {
  CHECK(Accepted("[" + std::string(100000, '9') + "]") == false);  // too big for a double
  CHECK(Accepted("[0." + std::string(100000, '9') + "]"));
  CHECK(Accepted("[1e-" + std::string(100000, '9') + "]"));
  CHECK_FALSE(Accepted("[1e" + std::string(100000, '9') + "]"));
  CHECK_FALSE(Accepted("[1e400]"));
  CHECK_FALSE(Accepted("[0.1e2147483648]"));
}

}  // namespace
}  // namespace keys
