// Looks over the bytes of one FastCGI request before libfcgi reads them, so that libfcgi never
// waits for a byte and never sees a length that it should not believe.
//
// A request is exactly: BEGIN_REQUEST (responder), PARAMS… and an empty PARAMS, STDIN… and an empty
// STDIN, all of one id, and nothing after it until it is answered (no multiplexing). The names and
// values of the parameters lie within the parameters. All of it within kMaxRequestLength.
// Source: FastCGI Specification 1.0, sections 3.3, 3.4, 5.1, 5.2, 5.3.
#ifndef HANDLER_FASTCGI_REQUEST_FRAME_H_
#define HANDLER_FASTCGI_REQUEST_FRAME_H_

#include <cstddef>
#include <string_view>

namespace keys {

// nginx sends the parameters as one record of 64 KB at most: that, twice over.
inline constexpr size_t kMaxRequestLength = 128 * 1024;

enum class RequestState {
  kIncomplete,  // good so far
  kComplete,
  kMalformed,  // or too long: more bytes cannot make it good
};

RequestState CheckRequest(std::string_view bytes);

}  // namespace keys

#endif  // HANDLER_FASTCGI_REQUEST_FRAME_H_
