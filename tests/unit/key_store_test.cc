#include "handler/key_store.h"

#include <doctest/doctest.h>
#include <libpq-fe.h>

#include <array>
#include <memory>
#include <string>

namespace keys {
namespace {

using namespace std::chrono_literals;

struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ClearResult>;

constexpr int kColumns = 20;
constexpr int kScopesColumn = 12;
using Row = std::array<std::string, kColumns>;  // "null" stands for NULL

std::string Big(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> 8 * i & 0xFF);
  return text;
}

// timestamptz: microseconds since 2000-01-01.
std::string Time(DatabaseTime time) {
  const auto since = time - std::chrono::sys_days(std::chrono::January / 1 / 2000);
  return Big(static_cast<uint64_t>(since.count()), 8);
}

std::string Texts(std::initializer_list<std::string> texts) {
  constexpr int kTextType = 25;
  if (texts.size() == 0) return Big(0, 4) + Big(0, 4) + Big(kTextType, 4);
  std::string array = Big(1, 4) + Big(0, 4) + Big(kTextType, 4) + Big(texts.size(), 4) + Big(1, 4);
  for (const std::string& text : texts) array += Big(text.size(), 4) + text;
  return array;
}

const DatabaseTime kNow = std::chrono::sys_days(2026y / std::chrono::May / 17) + 9h + 42min + 11s;

// The count's columns, then one key's.
Row GoodRow() {
  return {Big(1, 1),
          Big(1000, 4),
          Big(7, 4),
          Time(kNow + 60s),
          Big(1000000, 4),
          Big(8, 4),
          Time(kNow + 86400s),
          Time(kNow),
          Big(0x0123456789ABCDEF, 8) + Big(0xFEDCBA9876543210, 8),
          "sk_live_zIc8",
          "Production SIEM",
          "pro",
          Texts({"read:iocs", "read:articles"}),
          Big(1000, 4),
          Big(1000000, 4),
          Big(142587, 8),
          "null",
          Time(DatabaseTime(-1us)),
          Time(kNow + 1us),
          "null"};
}

Row RowWithoutKey() {
  Row row = GoodRow();
  for (size_t i = 8; i < row.size(); ++i) row[i] = "null";
  return row;
}

Result ResultOf(std::initializer_list<Row> rows, int columns = kColumns) {
  Result result(PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK));
  std::array<PGresAttDesc, kColumns + 1> attributes{};
  std::array<char, 2> name{'c', '\0'};
  for (PGresAttDesc& attribute : attributes) {
    attribute.name = name.data();
    attribute.format = 1;
  }
  PQsetResultAttrs(result.get(), columns, attributes.data());
  int number = 0;
  for (const Row& row : rows) {
    for (int column = 0; column < std::min(columns, kColumns); ++column) {
      std::string value = row[static_cast<size_t>(column)];
      const bool null = value == "null";
      PQsetvalue(result.get(), number, column, null ? nullptr : value.data(),
                 null ? -1 : static_cast<int>(value.size()));
    }
    ++number;
  }
  return result;
}

TEST_CASE("no row is a session that is not live") {
  const Result result = ResultOf({});
  KeyList list;
  list.live_session = true;
  CHECK(ReadKeyList(Rows(result.get()), list));
  CHECK(!list.live_session);
}

TEST_CASE("a row's every value is read") {
  const Result result = ResultOf({GoodRow(), GoodRow()});
  KeyList list;
  REQUIRE(ReadKeyList(Rows(result.get()), list));
  CHECK(list.live_session);
  CHECK(list.admitted);
  CHECK(list.minute.limit == 1000);
  CHECK(list.minute.count == 7);
  CHECK(list.minute.ends == kNow + 60s);
  CHECK(list.day.limit == 1000000);
  CHECK(list.day.count == 8);
  CHECK(list.day.ends == kNow + 86400s);
  CHECK(list.now == kNow);
  REQUIRE(list.keys.size() == 2);
  CHECK(list.scopes.size() == 4);
  const ApiKey& key = list.keys[1];
  CHECK(ToString(key.id) == "01234567-89ab-cdef-fedc-ba9876543210");
  CHECK(key.key_prefix == "sk_live_zIc8");
  CHECK(key.name == "Production SIEM");
  CHECK(key.tier == "pro");
  CHECK(key.first_scope == 2);
  CHECK(key.scopes == 2);
  CHECK(list.scopes[3] == "read:articles");
  CHECK(key.requests_per_minute == 1000);
  CHECK(key.requests_per_day == 1000000);
  CHECK(key.total_requests == 142587);
  CHECK(!key.last_used_at);
  CHECK(key.created_at == DatabaseTime(-1us));
  CHECK(key.expires_at == kNow + 1us);
  CHECK(!key.revoked_at);
}

TEST_CASE("a row without a key is a user without keys, or over the limit") {
  for (const int admitted : {0, 1}) {
    CAPTURE(admitted);
    Row row = RowWithoutKey();
    row[0] = Big(static_cast<uint64_t>(admitted), 1);
    const Result result = ResultOf({row});
    KeyList list;
    list.keys.resize(3);
    REQUIRE(ReadKeyList(Rows(result.get()), list));
    CHECK(list.admitted == (admitted == 1));
    CHECK(list.keys.empty());
    CHECK(list.scopes.empty());
  }
}

TEST_CASE("a number, time or identifier of another length is refused") {
  for (size_t column = 0; column < kColumns; ++column) {
    const bool text = column >= 9 && column <= 11;
    const bool null = column == 16 || column == 19;
    if (text || null) continue;
    for (const bool longer : {false, true}) {
      CAPTURE(column);
      CAPTURE(longer);
      Row row = GoodRow();
      if (longer && column == kScopesColumn) continue;  // what follows an array is not looked at
      if (longer) row[column] += 'x';
      if (!longer) row[column].pop_back();
      const Result result = ResultOf({row});
      KeyList list;
      CHECK(!ReadKeyList(Rows(result.get()), list));
    }
  }
}

TEST_CASE("an array that is none, or lies about its lengths, is refused") {
  const std::string head = Big(0, 4) + Big(25, 4);
  const struct {
    const char* what;
    std::string array;
    bool good;
  } rows[] = {
      {"two texts", Texts({"a", "b"}), true},
      {"no text", Texts({}), true},
      {"an empty text", Texts({""}), true},
      {"nothing", "", false},
      {"two dimensions", Big(2, 4) + head + Big(1, 4) + Big(1, 4) + Big(1, 4) + Big(1, 4), false},
      {"a negative count", Big(1, 4) + head + Big(0xFFFFFFFF, 4) + Big(1, 4), false},
      {"more than there are", Big(1, 4) + head + Big(2, 4) + Big(1, 4) + Big(1, 4) + "a", false},
      {"a text longer than all", Big(1, 4) + head + Big(1, 4) + Big(1, 4) + Big(9, 4) + "a", false},
      {"a null text", Big(1, 4) + head + Big(1, 4) + Big(1, 4) + Big(0xFFFFFFFF, 4), false},
      {"2^31 - 1 texts", Big(1, 4) + head + Big(0x7FFFFFFF, 4) + Big(1, 4), false},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    Row values = GoodRow();
    values[kScopesColumn] = row.array;
    const Result result = ResultOf({values});
    KeyList list;
    CHECK(ReadKeyList(Rows(result.get()), list) == row.good);
  }
}

TEST_CASE("rows of another statement are refused") {
  for (const int columns : {1, kColumns - 1, kColumns + 1}) {
    CAPTURE(columns);
    const Result result = ResultOf({GoodRow()}, columns);
    KeyList list;
    CHECK(!ReadKeyList(Rows(result.get()), list));
  }
}

}  // namespace
}  // namespace keys
