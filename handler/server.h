// The event loop of one process of the pool: one epoll over the listener, the FastCGI connections,
// the PostgreSQL socket and the signals.
//
// SIGTERM, SIGINT and SIGUSR1 drain: no new connections, the requests that have come are answered,
// kept connections close, and the process ends within the deadline and a second, or twenty more
// while somebody still reads a long answer. Once a second the key files are looked at. Nothing else
// waits; the turn is epoll_wait.
#ifndef HANDLER_SERVER_H_
#define HANDLER_SERVER_H_

#include "handler/auth/key_files.h"
#include "handler/config.h"

namespace keys {

// Serves until it has drained; returns the exit status. `listener` is a listening socket. Throws
// std::runtime_error for what keeps it from starting.
int Serve(const Config& config, KeyFiles& key_files, int listener);

// Answers the one request that the environment describes (RFC 3875) on stdout; returns the exit
// status, 0 whatever the status of the response.
int AnswerCgi(const Config& config, KeyFiles& key_files);

}  // namespace keys

#endif  // HANDLER_SERVER_H_
