// KEYS_DATABASE_URL as a list of hosts. Each connection attempt goes to one of them.
//
// libpq itself tries the hosts of a list in turn, but has no timeout per host while it connects in
// the background, so a black-holed first host would hide a good second one. Conninfo adds
// keepalives unless the URL sets them. client_encoding is always UTF8. target_session_attrs is left
// out: the batcher asks each server whether it is writable.
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
  // Throws std::runtime_error for a URL (or key=value string) that libpq cannot parse, or in which
  // a part of the password would be taken for a host or a port. The message quotes nothing of the
  // URL except the name of an unknown parameter.
  explicit Conninfo(const std::string& url);

  size_t hosts() const { return hosts_.size(); }

  // Calls PQconnectStartParams for the host at this index. The caller owns the connection.
  pg_conn* StartConnect(size_t host) const;

 private:
  std::vector<std::pair<std::string, std::string>> options_;  // all but those in hosts_
  std::vector<std::array<std::string, 3>> hosts_;             // host, hostaddr, port
};

}  // namespace keys

#endif  // HANDLER_DATABASE_CONNINFO_H_
