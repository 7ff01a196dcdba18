// The event loop of one process of the pool: one epoll over the listener, the FastCGI connections,
// the PostgreSQL socket and the signals.
//
// SIGTERM, SIGINT and SIGUSR1 drain: the process accepts no connection, answers the requests that
// it has, closes kept connections and ends within the deadline plus 1 s, or 20 s later while a
// client still reads a long response. The loop looks at the key files once per second. It blocks
// in epoll_wait only, and where libpq resolves a host name (pg_connection.h).
#ifndef HANDLER_SERVER_H_
#define HANDLER_SERVER_H_

#include "handler/auth/key_files.h"
#include "handler/config.h"

namespace keys {

// Serves until it has drained; returns the exit status. `listener` is a listening socket. Throws
// std::runtime_error when it cannot start.
int Serve(const Config& config, KeyFiles& key_files, int listener);

}  // namespace keys

#endif  // HANDLER_SERVER_H_
