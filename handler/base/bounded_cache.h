// A cache of fixed size from keys to small values: set-associative, least recently used.
//
// A hash with a random seed per cache maps each key to a set of kWays entries, so a client cannot
// aim at a set. Inserting into a full set evicts its least recently used entry. A flood of keys
// never makes the cache grow.
//
// Key and Value are trivially copyable, and a Key has no padding (a Uuid, a SHA-256). All memory is
// allocated by the constructor. Pointers handed out by Find and Insert are valid until the next
// call of Insert, Erase or Clear. Nothing expires by itself: a value that expires stores when.
// Thread rule: one thread.
#ifndef HANDLER_BASE_BOUNDED_CACHE_H_
#define HANDLER_BASE_BOUNDED_CACHE_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

namespace keys {

template <typename Key, typename Value>
class BoundedCache {
  static_assert(std::is_trivially_copyable_v<Key> && std::is_trivially_copyable_v<Value>);
  static_assert(std::has_unique_object_representations_v<Key> && sizeof(Key) % 8 == 0);

 public:
  static constexpr size_t kWays = 8;

  // Holds `capacity` entries, rounded up to whole sets, at least one.
  explicit BoundedCache(size_t capacity)
      : sets_(capacity == 0 ? 1 : (capacity + kWays - 1) / kWays), entries_(sets_ * kWays) {
    std::random_device random;
    seed_ = uint64_t{random()} << 32 | random();
  }

  size_t capacity() const { return entries_.size(); }

  // The value of `key`, which may be changed in place and counts as just used; nullptr when it is
  // not there.
  Value* Find(const Key& key) {
    Entry* const entry = FindEntry(key);
    if (entry == nullptr) return nullptr;
    entry->last_used = ++clock_;
    return &entry->value;
  }

  // Adds or replaces.
  Value* Insert(const Key& key, const Value& value) {
    Entry* entry = FindEntry(key);
    if (entry == nullptr) {
      entry = SetOf(key);
      for (Entry* other = entry; other != SetOf(key) + kWays; ++other) {
        if (other->last_used < entry->last_used) entry = other;
      }
    }
    *entry = {key, value, ++clock_};
    return &entry->value;
  }

  void Erase(const Key& key) {
    Entry* const entry = FindEntry(key);
    if (entry != nullptr) *entry = Entry{};
  }

  void Clear() { entries_.assign(entries_.size(), Entry{}); }

 private:
  struct Entry {
    Key key{};
    Value value{};
    uint64_t last_used = 0;  // 0: empty
  };

  static uint64_t Mix(uint64_t hash) {
    hash *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio, odd
    return hash ^ hash >> 32;
  }

  Entry* SetOf(const Key& key) {
    const auto words = std::bit_cast<std::array<uint64_t, sizeof(Key) / 8>>(key);
    uint64_t hash = seed_;
    for (const uint64_t word : words) hash = Mix(hash ^ word);
    // The upper half, which every bit of the key has reached, scaled to the number of sets.
    return &entries_[((Mix(hash) >> 32) * sets_ >> 32) * kWays];
  }

  Entry* FindEntry(const Key& key) {
    Entry* const set = SetOf(key);
    for (Entry* entry = set; entry != set + kWays; ++entry) {
      if (entry->last_used != 0 && std::memcmp(&entry->key, &key, sizeof key) == 0) return entry;
    }
    return nullptr;
  }

  size_t sets_;
  std::vector<Entry> entries_;
  uint64_t clock_ = 0;
  uint64_t seed_ = 0;
};

}  // namespace keys

#endif  // HANDLER_BASE_BOUNDED_CACHE_H_
