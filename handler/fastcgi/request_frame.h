// Checks the bytes of one FastCGI request before libfcgi reads them, so that libfcgi never waits
// for a byte and never parses an unchecked length.
//
// A request is exactly: BEGIN_REQUEST (responder), PARAMS… and an empty PARAMS, STDIN… and an empty
// STDIN, all of one id, and nothing after it until it is answered (no multiplexing). No name or
// value reaches beyond the end of the parameters. A request has at most kMaxRequestLength bytes.
// Source: FastCGI Specification 1.0, sections 3.3, 3.4, 5.1, 5.2, 5.3.
#ifndef HANDLER_FASTCGI_REQUEST_FRAME_H_
#define HANDLER_FASTCGI_REQUEST_FRAME_H_

#include <cstddef>
#include <string_view>

namespace keys {

// nginx sends the parameters as one record of at most 64 KB. This is twice as much.
inline constexpr size_t kMaxRequestLength = 128 * 1024;

enum class RequestState {
  kIncomplete,  // valid so far
  kComplete,
  kMalformed,  // or too long: more bytes cannot make it valid
};

RequestState CheckRequest(std::string_view bytes);

}  // namespace keys

#endif  // HANDLER_FASTCGI_REQUEST_FRAME_H_
