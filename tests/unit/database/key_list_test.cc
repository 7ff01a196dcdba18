#include "handler/database/key_list.h"

#include <doctest/doctest.h>
#include <libpq-fe.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace keys {
namespace {

using namespace std::chrono_literals;

struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using OwnedResult = std::unique_ptr<PGresult, ClearResult>;

constexpr size_t kColumns = 11;
using Columns = std::array<std::string, kColumns>;
constexpr size_t kTiersColumn = 9;
constexpr size_t kKeysColumn = 10;

std::string BigEndian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> 8 * i & 0xFF);
  return text;
}

// timestamptz: microseconds since 2000-01-01.
std::string Time(DatabaseTime time) {
  const auto since = time - std::chrono::sys_days(std::chrono::January / 1 / 2000);
  return BigEndian(static_cast<uint64_t>(since.count()), 8);
}

std::string Texts(std::initializer_list<std::string> texts) {
  constexpr int kTextType = 25;
  if (texts.size() == 0) return BigEndian(0, 4) + BigEndian(0, 4) + BigEndian(kTextType, 4);
  std::string array = BigEndian(1, 4) + BigEndian(0, 4) + BigEndian(kTextType, 4) +
                      BigEndian(texts.size(), 4) + BigEndian(1, 4);
  for (const std::string& text : texts) array += BigEndian(text.size(), 4) + text;
  return array;
}

// A key's fields in the order of the statement's ROW; nullopt is NULL.
using Key = std::vector<std::optional<std::string>>;
constexpr size_t kScopesField = 4;

std::string Record(const Key& fields) {
  std::string record = BigEndian(fields.size(), 4);
  for (const auto& field : fields) {
    record += BigEndian(0, 4);  // its type, which nobody looks at
    record += field ? BigEndian(field->size(), 4) + *field : BigEndian(0xFFFFFFFF, 4);
  }
  return record;
}

std::string Records(const std::vector<Key>& keys) {
  constexpr int kRecordType = 2249;
  if (keys.empty()) return BigEndian(0, 4) + BigEndian(0, 4) + BigEndian(kRecordType, 4);
  std::string array = BigEndian(1, 4) + BigEndian(0, 4) + BigEndian(kRecordType, 4) +
                      BigEndian(keys.size(), 4) + BigEndian(1, 4);
  for (const Key& key : keys) {
    const std::string record = Record(key);
    array += BigEndian(record.size(), 4) + record;
  }
  return array;
}

const DatabaseTime kNow = std::chrono::sys_days(2026y / std::chrono::May / 17) + 9h + 42min + 11s;

Key GoodKey() {
  return {BigEndian(0x0123456789ABCDEF, 8) + BigEndian(0xFEDCBA9876543210, 8),
          "sk_live_zIc8",
          "Production SIEM",
          "pro",
          Texts({"read:iocs", "read:articles"}),
          BigEndian(142587, 8),
          std::nullopt,
          Time(DatabaseTime(-1us)),
          Time(kNow + 1us),
          std::nullopt};
}

std::string Tiers() {
  return Records({{"free", BigEndian(10, 4), BigEndian(1000, 4)},
                  {"pro", BigEndian(1000, 4), BigEndian(1000000, 4)}});
}

Columns RowOf(const std::vector<Key>& keys) {
  return {std::string(16, 'u'), BigEndian(3, 4),
          BigEndian(1000, 4),   BigEndian(7, 4),
          Time(kNow + 60s),     BigEndian(1000000, 4),
          BigEndian(8, 4),      Time(kNow + 86400s),
          Time(kNow),           Tiers(),
          Records(keys)};
}

OwnedResult ResultOf(const Columns& row, size_t columns = kColumns) {
  OwnedResult result(PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK));
  std::array<PGresAttDesc, kColumns + 1> attributes{};
  std::array<char, 2> name{'c', '\0'};
  for (PGresAttDesc& attribute : attributes) {
    attribute.name = name.data();
    attribute.format = 1;
  }
  PQsetResultAttrs(result.get(), static_cast<int>(columns), attributes.data());
  for (size_t column = 0; column < std::min(columns, kColumns); ++column) {
    std::string value = row[column];
    PQsetvalue(result.get(), 0, static_cast<int>(column), value.data(),
               static_cast<int>(value.size()));
  }
  return result;
}

bool Read(const Columns& row, KeyList& list) {
  const OwnedResult result = ResultOf(row);
  return ReadKeyList(Row(result.get(), 0), list);
}

bool IsRead(const Columns& row) {
  KeyList list;
  return Read(row, list);
}

TEST_CASE("a row's every value is read") {
  const OwnedResult result = ResultOf(RowOf({GoodKey(), GoodKey()}));
  KeyList list;
  REQUIRE(ReadKeyList(Row(result.get(), 0), list));
  CHECK(list.user.bytes[0] == 'u');
  CHECK(list.granted == 3);
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

TEST_CASE("no key in the array is a user without keys, or over the limit") {
  for (const int granted : {0, 1, 1000}) {
    CAPTURE(granted);
    Columns row = RowOf({});
    row[1] = BigEndian(static_cast<uint64_t>(granted), 4);
    KeyList list;
    list.keys.resize(3);
    REQUIRE(Read(row, list));
    CHECK(list.granted == granted);
    CHECK(list.keys.empty());
    CHECK(list.scopes.empty());
  }
}

TEST_CASE("a value of another length is refused, in a column or in a key's field") {
  for (const bool longer : {false, true}) {
    CAPTURE(longer);
    const auto change = [&](std::string& value) {
      if (longer) {
        value += 'x';
      } else {
        value.pop_back();
      }
    };
    for (size_t column = 0; column < kColumns; ++column) {
      CAPTURE(column);
      Columns row = RowOf({GoodKey()});
      change(row[column]);
      CHECK(!IsRead(row));
    }
    for (size_t field = 0; field < GoodKey().size(); ++field) {
      const bool is_text = field >= 1 && field <= 3;
      if (is_text || !GoodKey()[field]) continue;
      CAPTURE(field);
      Key key = GoodKey();
      change(*key[field]);
      CHECK(!IsRead(RowOf({GoodKey(), key})));
    }
  }
}

TEST_CASE("a key has all its fields, and null only where that means something") {
  for (size_t field = 0; field < GoodKey().size(); ++field) {
    CAPTURE(field);
    Key key = GoodKey();
    key[field] = std::nullopt;
    const bool may_be_null = field == 6 || field >= 8;
    CHECK(IsRead(RowOf({key})) == may_be_null);
  }
  Key key = GoodKey();
  key.pop_back();
  CHECK(!IsRead(RowOf({key})));
  key.resize(11);
  CHECK(!IsRead(RowOf({key})));
}

TEST_CASE("an array that is none, or lies about its lengths, is refused") {
  const std::string head = BigEndian(0, 4) + BigEndian(25, 4);
  const struct {
    const char* what;
    std::string array;
    bool good;
  } rows[] = {
      {"two texts", Texts({"a", "b"}), true},
      {"no text", Texts({}), true},
      {"an empty text", Texts({""}), true},
      {"nothing", "", false},
      {"more behind the last", Texts({"a"}) + "x", false},
      {"more behind none", Texts({}) + "x", false},
      {"two dimensions",
       BigEndian(2, 4) + head + BigEndian(1, 4) + BigEndian(1, 4) + BigEndian(1, 4) +
           BigEndian(1, 4),
       false},
      {"a negative count", BigEndian(1, 4) + head + BigEndian(0xFFFFFFFF, 4) + BigEndian(1, 4),
       false},
      {"more than there are",
       BigEndian(1, 4) + head + BigEndian(2, 4) + BigEndian(1, 4) + BigEndian(1, 4) + "a", false},
      {"a text longer than all",
       BigEndian(1, 4) + head + BigEndian(1, 4) + BigEndian(1, 4) + BigEndian(9, 4) + "a", false},
      {"a null text",
       BigEndian(1, 4) + head + BigEndian(1, 4) + BigEndian(1, 4) + BigEndian(0xFFFFFFFF, 4),
       false},
      {"2^31 - 1 texts", BigEndian(1, 4) + head + BigEndian(0x7FFFFFFF, 4) + BigEndian(1, 4),
       false},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    Key key = GoodKey();
    key[kScopesField] = row.array;
    CHECK(IsRead(RowOf({key})) == row.good);
    Columns columns = RowOf({});
    columns[kKeysColumn] = row.array;  // of texts that are no records, if any
    CHECK(IsRead(columns) == (row.array == Texts({})));
  }
}

TEST_CASE("a key has the limits of its tier, and a tier that is not told is refused") {
  KeyList list;
  Key key = GoodKey();
  key[3] = "free";
  const Columns row = RowOf({key, GoodKey()});
  const OwnedResult result = ResultOf(row);
  REQUIRE(ReadKeyList(Row(result.get(), 0), list));
  CHECK(list.keys[0].requests_per_minute == 10);
  CHECK(list.keys[1].requests_per_day == 1000000);
  key[3] = "gold";
  CHECK(!IsRead(RowOf({key})));
  for (const std::string& tiers : {std::string(), Records({{"pro", BigEndian(1000, 4)}}),
                                   Records({{"pro", BigEndian(1, 2), BigEndian(1, 4)}})}) {
    Columns columns = RowOf({});
    columns[kTiersColumn] = tiers;
    CHECK(!IsRead(columns));
  }
}

TEST_CASE("the head of a row tells user and grant without reading the keys") {
  Columns row = RowOf({});
  row[kKeysColumn] = "broken";
  const OwnedResult result = ResultOf(row);
  const std::optional<RowHead> head = ReadRowHead(Row(result.get(), 0));
  REQUIRE(head);
  CHECK(head->user.bytes[15] == 'u');
  CHECK(head->granted == 3);
  row[1] = BigEndian(0xFFFFFFFF, 4);
  const OwnedResult negative = ResultOf(row);
  CHECK(!ReadRowHead(Row(negative.get(), 0)));
}

TEST_CASE("a row of another statement is refused") {
  for (const size_t columns : {size_t{1}, kColumns - 1, kColumns + 1}) {
    CAPTURE(columns);
    const OwnedResult result = ResultOf(RowOf({GoodKey()}), columns);
    KeyList list;
    CHECK(!ReadKeyList(Row(result.get(), 0), list));
  }
}

}  // namespace
}  // namespace keys
