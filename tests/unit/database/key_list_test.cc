#include "handler/database/key_list.h"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/support/list_rows.h"

namespace keys {
namespace {

using namespace std::chrono_literals;

const DatabaseTime kMoment =
    std::chrono::sys_days(2026y / std::chrono::May / 17) + 9h + 42min + 11s;

Uuid User(char letter) {
  Uuid user;
  user.bytes.fill(static_cast<unsigned char>(letter));
  return user;
}

ListRow Tier(const std::string& name, int32_t minute, int32_t day) {
  return TierRow(name, minute, day, kMoment);
}

ListRow Counted(char user) {
  return UserRow(User(user), 3, {1000, 7, kMoment + 60s}, {1000000, 8, kMoment + 86400s});
}

ListRow Key(char user) {
  ListRow row = KeyRow(User(user));
  row[kId] = BigEndian(0x0123456789ABCDEF, 8) + BigEndian(0xFEDCBA9876543210, 8);
  row[kKeyPrefix] = "sk_live_zIc8";
  row[kName] = "Production SIEM";
  row[kTier] = "pro";
  row[kScopes] = Texts({"read:iocs", "read:articles"});
  row[kTotalRequests] = BigEndian(142587, 8);
  row[kCreatedAt] = Time(DatabaseTime(-1us));
  row[kExpiresAt] = Time(kMoment + 1us);
  return row;
}

// With the tiers before them.
Result Answer(std::vector<ListRow> rows) {
  rows.insert(rows.begin(), {Tier("free", 10, 1000), Tier("pro", 1000, 1000000)});
  return MakeResult(rows);
}

// Whether all of it is the statement's.
bool IsRead(const Result& result) {
  KeyLists lists;
  if (!lists.Read(result)) return false;
  for (const KeyList& list : lists.lists()) {
    for (size_t i = 0; i < list.keys; ++i) {
      if (lists.Key(list, i) == nullptr) return false;
    }
  }
  return true;
}

TEST_CASE("every value of the rows is read") {
  const Result result = Answer({Counted('u'), Key('u'), Key('u')});
  KeyLists lists;
  REQUIRE(lists.Read(result));
  REQUIRE(lists.lists().size() == 1);
  const KeyList& list = lists.lists()[0];
  CHECK(list.user.bytes[0] == 'u');
  CHECK(list.granted == 3);
  CHECK(list.minute.limit == 1000);
  CHECK(list.minute.count == 7);
  CHECK(list.minute.ends == kMoment + 60s);
  CHECK(list.day.limit == 1000000);
  CHECK(list.day.count == 8);
  CHECK(list.day.ends == kMoment + 86400s);
  CHECK(list.now == kMoment);
  REQUIRE(list.keys == 2);
  const ApiKey* const key = lists.Key(list, 1);
  REQUIRE(key != nullptr);
  CHECK(ToString(key->id) == "01234567-89ab-cdef-fedc-ba9876543210");
  CHECK(key->key_prefix == "sk_live_zIc8");
  CHECK(key->name == "Production SIEM");
  CHECK(key->tier == "pro");
  REQUIRE(key->scopes.size() == 2);
  CHECK(key->scopes[1] == "read:articles");
  CHECK(key->requests_per_minute == 1000);
  CHECK(key->requests_per_day == 1000000);
  CHECK(key->total_requests == 142587);
  CHECK(!key->last_used_at);
  CHECK(key->created_at == DatabaseTime(-1us));
  CHECK(key->expires_at == kMoment + 1us);
  CHECK(!key->revoked_at);
}

TEST_CASE("each user has the rows of his own, and one without a key has none") {
  const Result result = Answer(
      {Counted('a'), Counted('b'), Counted('c'), Counted('d'), Key('a'), Key('a'), Key('c')});
  KeyLists lists;
  REQUIRE(lists.Read(result));
  std::string found;
  for (const KeyList& list : lists.lists()) {
    found += static_cast<char>(list.user.bytes[0]) + std::to_string(list.keys) + ' ';
    for (size_t i = 0; i < list.keys; ++i) CHECK(lists.Key(list, i) != nullptr);
  }
  CHECK(found == "a2 b0 c1 d0 ");
  REQUIRE(lists.Read(Answer({})));  // and nothing of it is left
  CHECK(lists.lists().empty());
}

TEST_CASE("no grant is read as such") {
  for (const int granted : {0, 1, 1000}) {
    CAPTURE(granted);
    ListRow row = Counted('u');
    row[kGranted] = BigEndian(static_cast<uint64_t>(granted), 4);
    const Result result = Answer({row});
    KeyLists lists;
    REQUIRE(lists.Read(result));
    CHECK(lists.lists()[0].granted == granted);
  }
  ListRow row = Counted('u');
  row[kGranted] = BigEndian(0xFFFFFFFF, 4);
  CHECK(!IsRead(Answer({row})));
}

TEST_CASE("a value of another length is refused") {
  const std::vector<ListRow> good = {Tier("pro", 1000, 1000000), Counted('u'), Key('u')};
  REQUIRE(IsRead(MakeResult(good)));
  for (size_t number = 0; number < good.size(); ++number) {
    for (size_t column = 0; column < kColumns; ++column) {
      const bool is_text = column >= kKeyPrefix && column <= kTier;
      if (is_text || !good[number][column]) continue;
      CAPTURE(number);
      CAPTURE(column);
      std::vector<ListRow> rows = good;
      *rows[number][column] += 'x';
      CHECK(!IsRead(MakeResult(rows)));
      rows[number][column]->resize(good[number][column]->size() - 1);
      CHECK(!IsRead(MakeResult(rows)));
    }
  }
}

TEST_CASE("null only where that means something") {
  for (size_t column = 0; column < kColumns; ++column) {
    CAPTURE(column);
    ListRow counted = Counted('u');
    if (counted[column]) {
      counted[column] = std::nullopt;
      CHECK(!IsRead(Answer({counted, Key('u')})));
    }
    ListRow key = Key('u');
    // The schema keeps texts from being null.
    if (column == kKeyPrefix || column == kName) continue;
    const bool may_be_null = !key[column] || column == kExpiresAt;
    key[column] = std::nullopt;
    CHECK(IsRead(Answer({Counted('u'), key})) == may_be_null);
  }
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
    ListRow key = Key('u');
    key[kScopes] = row.array;
    CHECK(IsRead(Answer({Counted('u'), key})) == row.good);
  }
}

TEST_CASE("a key has the limits of its tier, and a tier that is not told is refused") {
  ListRow row = Key('u');
  row[kTier] = "free";
  const Result result = Answer({Counted('u'), row, Key('u')});
  KeyLists lists;
  REQUIRE(lists.Read(result));
  CHECK(lists.Key(lists.lists()[0], 0)->requests_per_minute == 10);
  CHECK(lists.Key(lists.lists()[0], 1)->requests_per_day == 1000000);
  row[kTier] = "gold";
  CHECK(!IsRead(Answer({Counted('u'), row})));
}

TEST_CASE("rows that are not the statement's are refused") {
  const ListRow tier = Tier("pro", 1000, 1000000);
  CHECK(!IsRead(MakeResult({})));              // the role sees no tier
  CHECK(!IsRead(MakeResult({Counted('u')})));  // nor for this user
  CHECK(IsRead(MakeResult({tier, Counted('u'), Key('u')})));
  CHECK(!IsRead(MakeResult({tier, Counted('u'), tier})));
  CHECK(!IsRead(MakeResult({tier, Counted('u'), Key('u'), tier})));
  CHECK(!IsRead(MakeResult({tier, Key('u')})));
  CHECK(!IsRead(MakeResult({tier, Key('u'), Counted('u')})));
  CHECK(!IsRead(MakeResult({tier, Counted('u'), Key('x')})));
  CHECK(!IsRead(MakeResult({tier, Counted('t'), Key('t'), Counted('u')})));
  CHECK(!IsRead(MakeResult({tier, Counted('t'), Counted('u'), Key('u'), Key('t')})));
  CHECK(!IsRead(MakeResult({tier, Counted('t'), Counted('u'), Key('t'), Key('u'), Key('t')})));
  CHECK(IsRead(MakeResult(std::vector<ListRow>(8, tier))));
  CHECK(!IsRead(MakeResult(std::vector<ListRow>(9, tier))));
  for (const size_t columns : {size_t{1}, kColumns - 1, kColumns + 1}) {
    CAPTURE(columns);
    CHECK(!IsRead(MakeResult({tier, Counted('u'), Key('u')}, columns)));
  }
}

}  // namespace
}  // namespace keys
