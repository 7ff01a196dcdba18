#include "handler/database/conninfo.h"

#include <doctest/doctest.h>
#include <libpq-fe.h>

#include <memory>
#include <stdexcept>

namespace keys {
namespace {

TEST_CASE("each host of the list is a target of its own") {
  const struct {
    const char* url;
    std::vector<std::pair<std::string, std::string>> hosts;  // and ports
  } rows[] = {
      {"host=/nowhere/a dbname=x", {{"/nowhere/a", "5432"}}},
      {"postgresql://u@/x?host=/nowhere/a&port=7", {{"/nowhere/a", "7"}}},
      {"host=/nowhere/a,/nowhere/b port=1,2", {{"/nowhere/a", "1"}, {"/nowhere/b", "2"}}},
      {"host=/nowhere/a,/nowhere/b port=9", {{"/nowhere/a", "9"}, {"/nowhere/b", "9"}}},
      {"postgresql://u@127.0.0.1:1,127.0.0.2:2/x", {{"127.0.0.1", "1"}, {"127.0.0.2", "2"}}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.url);
    const Conninfo conninfo(row.url);
    REQUIRE(conninfo.hosts() == row.hosts.size());
    for (size_t i = 0; i < row.hosts.size(); ++i) {
      const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(conninfo.StartConnect(i),
                                                                    &PQfinish);
      REQUIRE(connection);
      CHECK(row.hosts[i].first == PQhost(connection.get()));
      CHECK(row.hosts[i].second == PQport(connection.get()));
    }
  }
}

TEST_CASE("a URL that cannot be right is refused with a reason that quotes nothing of a password") {
  for (const char* const url :
       {"postgresql://u:hunter2@[::1/x", "host=a nonsense=hunter2", "host", "password=my hunter2",
        "postgresql://u:p%zzhunter2@h/x", "postgresql://u:hunter2/ret@h/x",
        "postgresql://u:p@hunter2@h/x", "port=hunter2", "host=a,hunter2@b"}) {
    CAPTURE(url);
    try {
      const Conninfo conninfo(url);
      FAIL_CHECK("accepted");
    } catch (const std::runtime_error& error) {
      const std::string what = error.what();
      CHECK(what.starts_with("KEYS_DATABASE_URL: "));
      CHECK(what.size() > 20);
      CHECK(what.find('\n') == std::string::npos);
      CHECK(what.find("hunter2") == std::string::npos);
    }
  }
}

TEST_CASE("a parameter of somebody else's is named, unless it may be a part of the password") {
  const auto reason = [](const std::string& url) -> std::string {
    try {
      const Conninfo conninfo(url);
      return "none";
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  };
  const std::string vercel =
      "postgres://u:hunter2@h:5432/postgres?sslmode=require&supa=base-pooler.x";
  CHECK(reason(vercel) == "KEYS_DATABASE_URL: PostgreSQL has no parameter 'supa'; delete it");
  CHECK(reason("postgresql://u:hunter2@h/db?pgbouncer=true&connection_limit=1") ==
        "KEYS_DATABASE_URL: PostgreSQL has no parameter 'pgbouncer'; delete it");
  CHECK(reason("postgresql://h/db?connection_limit=1").find("'connection_limit'") !=
        std::string::npos);
  CHECK(reason("postgresql://u:p@x?hunter2=y@h/db").find("hunter2") == std::string::npos);
}

TEST_CASE("a directory and an abstract socket are hosts, with an @ or without") {
  for (const char* const url : {"host=@abstract", "host=/run/a@b", "host=/run/a,@b port=1,"}) {
    CAPTURE(url);
    CHECK_NOTHROW(Conninfo{url});
  }
}

}  // namespace
}  // namespace keys
