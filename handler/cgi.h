// One request as a CGI program (RFC 3875), which is what keys-fcgi is without a listening socket.
#ifndef HANDLER_CGI_H_
#define HANDLER_CGI_H_

#include "handler/auth/key_files.h"
#include "handler/config.h"

namespace keys {

// Answers the request that the environment describes on stdout. Returns the exit status: 0 when the
// response is written, whatever its status. Throws std::runtime_error when it cannot start.
int AnswerCgi(const Config& config, KeyFiles& key_files);

}  // namespace keys

#endif  // HANDLER_CGI_H_
