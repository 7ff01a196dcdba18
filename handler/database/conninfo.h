// KEYS_DATABASE_URL taken apart: its hosts, one of which each attempt to connect is for.
//
// libpq tries the hosts of a list in turn by itself, but while it connects in the background it has
// no limit of time for one of them, so a black-holed first host would hide a good second one.
#ifndef HANDLER_DATABASE_CONNINFO_H_
#define HANDLER_DATABASE_CONNINFO_H_

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

struct pg_conn;

namespace keys {

class Conninfo {
 public:
  // Throws std::runtime_error for a URL (or key=value string) that libpq cannot parse, or takes a
  // password's special characters in for a host or a port. The message quotes nothing of it.
  explicit Conninfo(const std::string& url);

  size_t hosts() const { return hosts_.size(); }

  // PQconnectStartParams for the host of that index; the caller owns what it returns.
  pg_conn* StartConnect(size_t host) const;

 private:
  std::vector<std::pair<std::string, std::string>> options_;  // all but the three of hosts_
  std::vector<std::array<std::string, 3>> hosts_;             // host, hostaddr, port
};

// libpq's message without its line ends.
std::string OneLine(const char* message);

// The SQLSTATE in a message of a failed attempt to connect, which StartConnect asks for: libpq
// has no other way to tell. Empty when there is none: the server did not get to speak.
std::string_view SqlStateIn(std::string_view message);

}  // namespace keys

#endif  // HANDLER_DATABASE_CONNINFO_H_
