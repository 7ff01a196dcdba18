#include "handler/api/response_body.h"

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <array>
#include <cstring>

#include "handler/base/text.h"

namespace keys {
namespace {

// RapidJSON's own check of UTF-8 reads past the end of a text that is cut within a character, and
// handles each byte by itself. So it is off, and WriteText checks.
using JsonBuffer = rapidjson::StringBuffer;
class JsonWriter : public rapidjson::Writer<JsonBuffer> {
 public:
  using Writer::Writer;

  // A value, or a name, that is JSON already. RawValue() would copy it byte by byte.
  void Raw(std::string_view json) {
    Prefix(rapidjson::kStringType);
    json.copy(os_->Push(json.size()), json.size());
  }
};

constexpr size_t kMaxKeptBuffer = 256 * 1024;

// One buffer and one writer for all responses.
struct JsonOutput {
  JsonBuffer buffer;
  JsonWriter writer{buffer};

  JsonWriter& Begin(std::string& body) {
    body.clear();
    buffer.Clear();
    writer.Reset(buffer);
    return writer;
  }

  // Moves the written part of a long list to `body`, so that the list is never in memory twice.
  // `done` of `all` keys are written.
  void Spill(std::string& body, size_t done, size_t all) {
    if (buffer.GetSize() <= kMaxKeptBuffer) return;
    if (body.empty()) body.reserve(buffer.GetSize() / done * (all + all / 8));
    End(body);
    buffer.Clear();
  }

  void End(std::string& body) { body.append(buffer.GetString(), buffer.GetSize()); }
};

JsonOutput& Output() {
  static JsonOutput output;
  return output;
}

// Whether JSON needs no escapes for a text: printable ASCII without quotes and backslashes.
bool IsPlain(std::string_view text) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHighs = 0x80 * kOnes;
  const auto below = [](uint64_t word, uint64_t byte) { return (word - byte * kOnes) & ~word; };
  for (size_t at = 0; at < text.size(); at += sizeof(uint64_t)) {
    uint64_t word = ' ' * kOnes;
    std::memcpy(&word, text.data() + at, std::min(text.size() - at, sizeof word));
    const uint64_t quotes = below(word ^ '"' * kOnes, 1);
    const uint64_t backslashes = below(word ^ '\\' * kOnes, 1);
    if (((word | below(word, ' ') | quotes | backslashes) & kHighs) != 0) return false;
  }
  return true;
}

// False when the text is not UTF-8; the body is then invalid.
bool WriteText(JsonWriter& writer, std::string_view text) {
  std::array<char, 128> quoted;
  if (text.size() <= quoted.size() - 2 && IsPlain(text)) {
    quoted[0] = '"';
    text.copy(&quoted[1], text.size());
    quoted[text.size() + 1] = '"';
    writer.Raw({quoted.data(), text.size() + 2});
    return true;
  }
  if (!IsUtf8(text)) {
    writer.Null();
    return false;
  }
  return writer.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

using TimeText = std::array<char, 22>;  // with its quotes

TimeText QuotedTime(DatabaseTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const auto seconds =
      static_cast<int>(std::chrono::floor<std::chrono::seconds>(time - day).count());
  TimeText text = {'"', '0', '0', '0', '0', '-', '0', '0', '-', '0', '0',
                   'T', '0', '0', ':', '0', '0', ':', '0', '0', 'Z', '"'};
  WriteDigits(&text[1], static_cast<int>(date.year()), 4);
  WriteDigits(&text[6], static_cast<int>(static_cast<unsigned>(date.month())), 2);
  WriteDigits(&text[9], static_cast<int>(static_cast<unsigned>(date.day())), 2);
  WriteDigits(&text[12], seconds / 3600, 2);
  WriteDigits(&text[15], seconds / 60 % 60, 2);
  WriteDigits(&text[18], seconds % 60, 2);
  return text;
}

void WriteTime(JsonWriter& writer, const std::optional<DatabaseTime>& time) {
  if (!time) {
    writer.Null();
    return;
  }
  const TimeText text = QuotedTime(*time);
  writer.Raw({text.data(), text.size()});
}

// The published form: the fixed part of the prefix, then eight bullets.
bool WritePreview(JsonWriter& writer, std::string_view prefix) {
  static constexpr std::string_view kBullets = "••••••••";
  const size_t fixed = prefix.rfind('_') + 1;  // 0 when there is none
  std::array<char, 64> preview{};
  const std::string_view kept = prefix.substr(0, std::min(fixed, preview.size() - kBullets.size()));
  kept.copy(preview.data(), kept.size());
  kBullets.copy(preview.data() + kept.size(), kBullets.size());
  return WriteText(writer, {preview.data(), kept.size() + kBullets.size()});
}

bool WriteKey(JsonWriter& writer, const ApiKey& key) {
  std::array<char, 38> id{'"'};
  FormatUuid(key.id, &id[1]);
  id.back() = '"';

  writer.StartObject();
  writer.Raw("\"id\"");
  writer.Raw({id.data(), id.size()});
  writer.Raw("\"key_prefix\"");
  bool good = WriteText(writer, key.key_prefix);
  writer.Raw("\"key_preview\"");
  good &= WritePreview(writer, key.key_prefix);
  writer.Raw("\"name\"");
  good &= WriteText(writer, key.name);
  writer.Raw("\"tier\"");
  good &= WriteText(writer, key.tier);
  writer.Raw("\"scopes\"");
  writer.StartArray();
  for (const std::string_view scope : key.scopes) good &= WriteText(writer, scope);
  writer.EndArray();
  writer.Raw("\"rate_limit_per_minute\"");
  writer.Int(key.requests_per_minute);
  writer.Raw("\"rate_limit_per_day\"");
  writer.Int(key.requests_per_day);
  writer.Raw("\"total_requests\"");
  writer.Int64(key.total_requests);
  writer.Raw("\"last_used_at\"");
  WriteTime(writer, key.last_used_at);
  writer.Raw("\"created_at\"");
  WriteTime(writer, key.created_at);
  writer.Raw("\"expires_at\"");
  WriteTime(writer, key.expires_at);
  writer.Raw("\"revoked_at\"");
  WriteTime(writer, key.revoked_at);
  writer.EndObject();
  return good;
}

}  // namespace

bool WriteKeyList(size_t keys, const KeyAt& key_at, std::string& body) {
  JsonWriter& writer = Output().Begin(body);
  writer.StartObject();
  writer.Raw("\"data\"");
  writer.StartArray();
  for (size_t position = 0; position < keys; ++position) {
    const ApiKey* const key = key_at(position);
    if (key == nullptr || !WriteKey(writer, *key)) return false;
    Output().Spill(body, position + 1, keys);
  }
  writer.EndArray();
  writer.Raw("\"meta\"");
  writer.StartObject();
  writer.Raw("\"total\"");
  writer.Uint64(keys);
  writer.EndObject();
  writer.EndObject();
  Output().End(body);
  return true;
}

bool WriteError(std::string_view code, std::string_view message, std::string_view request_id,
                const Window* over, std::string& body) {
  JsonWriter& writer = Output().Begin(body);
  writer.StartObject();
  writer.Raw("\"error\"");
  writer.StartObject();
  writer.Raw("\"code\"");
  bool good = WriteText(writer, code);
  writer.Raw("\"message\"");
  good &= WriteText(writer, message);
  if (over != nullptr) {
    writer.Raw("\"details\"");
    writer.StartObject();
    writer.Raw("\"limit\"");
    writer.Int(over->limit);
    writer.Raw("\"window\"");
    good &= WriteText(writer, over->name);
    writer.Raw("\"reset\"");
    writer.Int64(over->reset);
    writer.EndObject();
  }
  writer.Raw("\"request_id\"");
  good &= WriteText(writer, request_id);
  writer.EndObject();
  writer.EndObject();
  Output().End(body);
  return good;
}

std::string FormatTime(DatabaseTime time) {
  const TimeText text = QuotedTime(time);
  return {text.data() + 1, text.size() - 2};
}

}  // namespace keys
