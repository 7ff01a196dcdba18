#include "handler/auth/key_files.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/auth/signer.h"

namespace keys {
namespace {

using test::Signer;
using Change = KeyFiles::Change;

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/key_files_test.XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Directory() { std::filesystem::remove_all(path_); }

  std::string Path(const std::string& name) const { return path_ + "/" + name; }

  // As a careful operator does: a new file that takes the old one's place.
  std::string Replace(const std::string& name, const std::string& text) const {
    Write("new", text);
    std::filesystem::rename(Path("new"), Path(name));
    return Path(name);
  }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary | std::ios::trunc) << text;
    return Path(name);
  }

 private:
  std::string path_;
};

std::string SetOf(const std::string& keys) {
  return "{\"keys\":[" + keys + "]}";
}
std::string Es(int number) {
  return Signer::Of(Algorithm::kEs256, number).Jwk("es" + std::to_string(number));
}
bool Has(const KeyFiles& files, const std::string& kid, std::string_view alg = "ES256") {
  return std::holds_alternative<JwkSet::Candidates>(files.keys().Find(kid, alg));
}

const std::string kSecret = "a legacy secret of over thirty-two bytes";

// Whether the set that was loaded verifies with exactly these bytes.
bool UsesSecret(const KeyFiles& files, const std::string& secret) {
  const auto found = files.keys().Find(std::nullopt, "HS256");
  const auto* const keys = std::get_if<JwkSet::Candidates>(&found);
  return keys != nullptr && (*keys->begin())->Verify("input", test::HmacSha256(secret, "input"));
}

TEST_CASE("either file or both make one set") {
  const Directory directory;
  const std::string jwks = directory.Write("jwks", SetOf(Es(0)));
  const std::string secret = directory.Write("secret", kSecret);
  KeyFiles one({jwks, ""}), other({"", secret}), both({jwks, secret});
  CHECK(one.Load().empty());
  CHECK(other.Load().empty());
  CHECK(both.Load().empty());
  CHECK(one.keys().size() == 1);
  CHECK(other.keys().size() == 1);
  CHECK(both.keys().size() == 2);
  CHECK(one.Poll() == Change::kNone);
}

TEST_CASE("the secret is the raw text without its last line end") {
  const Directory directory;
  struct Row {
    std::string text, secret;
  };
  const std::string base64 = "c2VjcmV0IHRoYXQgaXMgbm90IGRlY29kZWQgYXQgYWxs";
  const Row rows[] = {
      {kSecret, kSecret},
      {kSecret + "\n", kSecret},
      {kSecret + "\r\n", kSecret},
      {kSecret + "\n\n", kSecret + "\n"},
      {kSecret + " \n", kSecret + " "},
      {kSecret + "\r", kSecret + "\r"},
      {" " + kSecret, " " + kSecret},
      {base64, base64},
      {std::string(32, '\0'), std::string(32, '\0')},
      {std::string(4096, 'x') + "\r\n", std::string(4096, 'x')},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    KeyFiles files({"", directory.Write("secret", row.text)});
    CHECK(files.Load().empty());
    CHECK(UsesSecret(files, row.secret));
  }
}

TEST_CASE("the first load returns every problem of both files") {
  const Directory directory;
  const auto problems = [](const std::string& jwks, const std::string& secret) {
    std::string all;
    for (const std::string& problem : KeyFiles({jwks, secret}).Load()) all += problem + "\n";
    return all;
  };
  const std::string good = directory.Write("good", SetOf(Es(0)));
  const std::string absent = directory.Path("absent");
  const std::string fifo = directory.Path("fifo");
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);

  CHECK(problems(good, "") == "");
  CHECK(problems(absent, directory.Path("also")) == absent + ": No such file or directory\n" +
                                                        directory.Path("also") +
                                                        ": No such file or directory\n");
  CHECK(problems(fifo, "") == fifo + ": not a regular file\n");
  CHECK(problems(directory.Path(""), "") == directory.Path("") + ": not a regular file\n");
  CHECK(problems(directory.Write("large", std::string(65537, ' ')), "") ==
        directory.Path("large") + ": over 65536 bytes\n");
  CHECK(problems("/dev/zero", "") == "/dev/zero: not a regular file\n");
  CHECK(problems("", directory.Write("long", std::string(4099, 'x'))) ==
        directory.Path("long") + ": over 4098 bytes\n");
  CHECK(problems(directory.Write("bad", SetOf(R"({"kid":"a"},{"kid":"b"})")),
                 directory.Write("short", "short\n")) ==
        "legacy secret: the secret has 5 bytes, not 32 to 4096\n"
        "key 'a': kty is missing\nkey 'b': kty is missing\n");
  CHECK(problems(directory.Path("bad"), "") ==
        "no key that verifies session tokens\nkey 'a': kty is missing\nkey 'b': kty is missing\n");
  CHECK(problems(directory.Write("empty", SetOf("")), "") ==
        "no key that verifies session tokens\n");
  CHECK(problems(directory.Path("empty"), directory.Write("secret", kSecret)) == "");
}

TEST_CASE("a good new set replaces the old one whole, with a new generation") {
  const Directory directory;
  KeyFiles files({directory.Replace("jwks", SetOf(Es(0))), ""});
  REQUIRE(files.Load().empty());
  const uint64_t generation = files.keys().generation();

  directory.Replace("jwks", SetOf(Es(0) + "," + Es(1)));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK(Has(files, "es0"));
  CHECK(Has(files, "es1"));
  CHECK(files.keys().generation() != generation);
  CHECK(files.Poll() == Change::kNone);

  directory.Replace("jwks", SetOf(Es(1)));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK_FALSE(Has(files, "es0"));
  CHECK(Has(files, "es1"));
}

TEST_CASE("a change of either file reads both, in place or replaced") {
  const Directory directory;
  KeyFiles files({directory.Write("jwks", SetOf(Es(0))), directory.Write("secret", kSecret)});
  REQUIRE(files.Load().empty());

  directory.Write("secret", kSecret + " and more");
  CHECK(files.Poll() == Change::kReplaced);
  CHECK(UsesSecret(files, kSecret + " and more"));
  CHECK(Has(files, "es0"));
  CHECK(files.Poll() == Change::kNone);

  directory.Write("jwks", SetOf(Es(1) + " "));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK(Has(files, "es1"));
  CHECK(UsesSecret(files, kSecret + " and more"));
}

TEST_CASE("a symbolic link that is pointed elsewhere is a change") {
  const Directory directory;
  directory.Write("a", SetOf(Es(0)));
  directory.Write("b", SetOf(Es(1)));
  std::filesystem::create_symlink("a", directory.Path("jwks"));
  KeyFiles files({directory.Path("jwks"), ""});
  REQUIRE(files.Load().empty());
  std::filesystem::create_symlink("b", directory.Path("new"));
  std::filesystem::rename(directory.Path("new"), directory.Path("jwks"));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK(Has(files, "es1"));
}

TEST_CASE("a broken set is reported once, and the old one stays until a good one comes") {
  const Directory directory;
  KeyFiles files({directory.Write("jwks", SetOf(Es(0))), directory.Write("secret", kSecret)});
  REQUIRE(files.Load().empty());
  const uint64_t generation = files.keys().generation();
  const auto still_the_old = [&] {
    return files.keys().generation() == generation && Has(files, "es0") &&
           UsesSecret(files, kSecret);
  };

  for (const std::string broken : {"", "{", "{\"keys\":{}}", "not a key set"}) {
    CAPTURE(broken);
    directory.Replace("jwks", broken);
    CHECK(files.Poll() == Change::kBroken);
    CHECK(files.Poll() == Change::kNone);
    CHECK(files.Poll() == Change::kNone);
    CHECK(still_the_old());
  }
  // One broken file keeps the other's news out as well: a set is taken whole.
  directory.Replace("secret", kSecret + " and more");
  CHECK(files.Poll() == Change::kBroken);
  CHECK(files.Poll() == Change::kNone);
  CHECK(still_the_old());

  std::filesystem::remove(directory.Path("jwks"));
  CHECK(files.Poll() == Change::kBroken);
  CHECK(files.Poll() == Change::kNone);
  CHECK(still_the_old());

  directory.Replace("jwks", SetOf(Es(1)));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK_FALSE(Has(files, "es0"));
  CHECK(Has(files, "es1"));
  CHECK(UsesSecret(files, kSecret + " and more"));
}

TEST_CASE("a set without a usable key leaves the old one in use, unless there is the secret") {
  const Directory directory;
  const std::string odd = R"({"kid":"odd","kty":"EC","crv":"P-384","x":"AA","y":"AA"})";
  KeyFiles files({directory.Replace("jwks", SetOf(Es(0))), ""});
  REQUIRE(files.Load().empty());
  for (const std::string& keys : {std::string(), odd}) {
    directory.Replace("jwks", SetOf(keys));
    CHECK(files.Poll() == Change::kBroken);
    CHECK(Has(files, "es0"));
  }
  directory.Replace("jwks", SetOf(odd + "," + Es(1)));
  CHECK(files.Poll() == Change::kReplaced);
  CHECK(Has(files, "es1"));

  KeyFiles both({directory.Path("jwks"), directory.Write("secret", kSecret)});
  REQUIRE(both.Load().empty());
  directory.Replace("jwks", SetOf(""));
  CHECK(both.Poll() == Change::kReplaced);
  CHECK_FALSE(Has(both, "es1"));
  CHECK(UsesSecret(both, kSecret));
}

TEST_CASE("a JWK set file is judged alone, as --check-keys does") {
  const Directory directory;
  CHECK(LoadJwkSetFile(directory.Write("good", SetOf(Es(0)))).problems.empty());
  CHECK(LoadJwkSetFile(directory.Write("empty", SetOf(""))).problems.size() == 1);
  CHECK(LoadJwkSetFile(directory.Write("bad", "{")).problems.size() == 1);
  CHECK(LoadJwkSetFile(directory.Path("absent")).problems.size() == 1);
}

TEST_CASE("a file that was touched confirms its keys and replaces none") {
  const Directory directory;
  const std::string jwks = directory.Write("jwks", SetOf(Es(0)));
  const auto touch = [&](int64_t moment) {
    const timespec times[] = {{moment, 0}, {moment, 0}};
    utimensat(AT_FDCWD, jwks.c_str(), times, 0);
  };
  touch(1000000000);
  KeyFiles files({jwks, ""});
  REQUIRE(files.Load().empty());
  const JwkSet* const set = &files.keys();
  CHECK(files.confirmed_at() == 1000000000);
  touch(1000000600);
  CHECK(files.Poll() == Change::kNone);
  CHECK(files.confirmed_at() == 1000000600);
  CHECK(&files.keys() == set);
  directory.Write("jwks", "{");
  CHECK(files.Poll() == Change::kBroken);
  CHECK(files.confirmed_at() == 1000000600);
  directory.Write("jwks", SetOf(Es(0)));
  CHECK(files.Poll() == Change::kReplaced);  // mended
  CHECK(KeyFiles({"", directory.Write("secret", kSecret)}).confirmed_at() == 0);
}

}  // namespace
}  // namespace keys
