#include "handler/base/bounded_cache.h"

#include <doctest/doctest.h>

#include "handler/base/uuid.h"

namespace keys {
namespace {

Uuid Number(uint64_t number) {
  Uuid uuid;
  std::memcpy(uuid.bytes.data(), &number, sizeof number);
  return uuid;
}

// One set: every key meets every other.
using OneSet = BoundedCache<Uuid, int>;

TEST_CASE("a bounded cache finds what was inserted, replaced and changed in place") {
  BoundedCache<Uuid, int> cache(64);
  CHECK(cache.Find(Number(1)) == nullptr);
  CHECK(*cache.Insert(Number(1), 10) == 10);
  CHECK(*cache.Insert(Number(2), 20) == 20);
  CHECK(*cache.Find(Number(1)) == 10);
  cache.Insert(Number(1), 11);
  CHECK(*cache.Find(Number(1)) == 11);
  *cache.Find(Number(1)) = 12;
  CHECK(*cache.Find(Number(1)) == 12);
  CHECK(*cache.Find(Number(2)) == 20);
}

TEST_CASE("the key of zeros is a key like others") {
  BoundedCache<Uuid, int> cache(8);
  CHECK(cache.Find(Uuid{}) == nullptr);
  cache.Insert(Uuid{}, 1);
  CHECK(*cache.Find(Uuid{}) == 1);
}

TEST_CASE("erase forgets one, clear forgets all") {
  BoundedCache<Uuid, int> cache(64);
  for (uint64_t i = 0; i < 4; ++i) cache.Insert(Number(i), 0);
  cache.Erase(Number(1));
  cache.Erase(Number(100));
  CHECK(cache.Find(Number(1)) == nullptr);
  CHECK(cache.Find(Number(2)) != nullptr);
  cache.Clear();
  for (uint64_t i = 0; i < 4; ++i) CHECK(cache.Find(Number(i)) == nullptr);
  cache.Insert(Number(1), 7);
  CHECK(*cache.Find(Number(1)) == 7);
}

TEST_CASE("a full set gives up the one that was used least recently") {
  OneSet cache(OneSet::kWays);
  REQUIRE(cache.capacity() == OneSet::kWays);
  for (uint64_t i = 0; i < OneSet::kWays; ++i) cache.Insert(Number(i), 0);
  CHECK(cache.Find(Number(0)) != nullptr);  // now 1 is the oldest
  cache.Insert(Number(100), 0);
  CHECK(cache.Find(Number(1)) == nullptr);
  CHECK(cache.Find(Number(0)) != nullptr);
  cache.Insert(Number(3), 1);  // replacing counts as use: 2 is the oldest
  cache.Insert(Number(101), 0);
  CHECK(cache.Find(Number(2)) == nullptr);
  CHECK(cache.Find(Number(3)) != nullptr);
}

TEST_CASE("an erased place is filled before anything is given up") {
  OneSet cache(OneSet::kWays);
  for (uint64_t i = 0; i < OneSet::kWays; ++i) cache.Insert(Number(i), 0);
  cache.Erase(Number(5));
  cache.Insert(Number(100), 0);
  for (uint64_t i = 0; i < OneSet::kWays; ++i) {
    CAPTURE(i);
    CHECK((cache.Find(Number(i)) != nullptr) == (i != 5));
  }
}

TEST_CASE("capacity is rounded up to whole sets") {
  CHECK(BoundedCache<Uuid, int>(0).capacity() == 8);
  CHECK(BoundedCache<Uuid, int>(1).capacity() == 8);
  CHECK(BoundedCache<Uuid, int>(8).capacity() == 8);
  CHECK(BoundedCache<Uuid, int>(9).capacity() == 16);
  CHECK(BoundedCache<Uuid, int>(100).capacity() == 104);
  CHECK(BoundedCache<Uuid, int>(16384).capacity() == 16384);
}

TEST_CASE("a flood neither grows the cache nor costs an entry that is in use") {
  BoundedCache<Uuid, uint64_t> cache(1024);
  cache.Insert(Number(1), 42);
  // Used once per kWays - 1 others, it is never the oldest of its set, even if they all fall into
  // it.
  for (uint64_t i = 1000; i < 101000; ++i) {
    cache.Insert(Number(i), i);
    if (i % (OneSet::kWays - 1) == 0) REQUIRE(cache.Find(Number(1)) != nullptr);
  }
  size_t kept = 0;
  for (uint64_t i = 1000; i < 101000; ++i) kept += cache.Find(Number(i)) != nullptr ? 1u : 0u;
  CHECK(kept < cache.capacity());
  CHECK(kept > cache.capacity() * 9 / 10);
}

TEST_CASE("keys that differ in one bit spread over the sets") {
  BoundedCache<std::array<unsigned char, 32>, int> cache(8192);
  for (size_t i = 0; i < 2048; ++i) {
    std::array<unsigned char, 32> key{};
    key[i % 32] = static_cast<unsigned char>(1 + i / 32);
    cache.Insert(key, 0);
  }
  size_t kept = 0;
  for (size_t i = 0; i < 2048; ++i) {
    std::array<unsigned char, 32> key{};
    key[i % 32] = static_cast<unsigned char>(1 + i / 32);
    kept += cache.Find(key) != nullptr ? 1u : 0u;
  }
  CHECK(kept > 2000);
}

}  // namespace
}  // namespace keys
