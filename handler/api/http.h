// A request and a response as plain data: what FastCGI and CGI (RFC 3875) both carry.
#ifndef HANDLER_API_HTTP_H_
#define HANDLER_API_HTTP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace keys {

enum class ApiError : uint8_t;  // api_error.h

// What the service reads of a request. The transport owns the views; they are valid during the call
// that passes the request.
struct Request {
  std::string_view method = {};          // REQUEST_METHOD
  std::string_view cookie = {};          // HTTP_COOKIE: every Cookie line, joined
  std::string_view sec_fetch_site = {};  // HTTP_SEC_FETCH_SITE
  std::string_view request_id = {};      // REQUEST_ID: from nginx; empty or malformed: one is made
  std::string_view trace_id = {};        // KEYS_TRACE_ID: from nginx; malformed: ignored
  bool has_api_key = false;              // KEYS_HAS_API_KEY: an API key was sent; never its value
  std::string_view status_page = {};     // KEYS_STATUS_PAGE: readyz or metrics, from nginx alone
};

// A response without its transport's framing. Reused from request to request, to reuse its memory.
struct Response {
  int status = 200;
  std::optional<ApiError> error;  // for the log and the metrics
  std::string_view content_type = "application/json";
  std::string headers;  // complete lines with CRLF, beyond those of every response
  std::string body;
  std::string_view list;  // unless empty, used instead of `body`: a list of keys, owned elsewhere

  std::string_view content() const { return list.empty() ? body : list; }
  void Clear();
};

// "OK", "Unauthorized", … (RFC 9110 section 15); "Unknown" for a status that we never send.
std::string_view ReasonPhrase(int status);

// Appends a CGI response without its body: what AppendCgiResponse appends before the body.
void AppendCgiHead(const Response& response, std::string_view request_id, std::string& out);

// Appends the whole CGI response: Status, the headers of every response, `headers`, an empty line,
// and the body unless the request was a HEAD.
void AppendCgiResponse(const Response& response, std::string_view request_id, bool head_only,
                       std::string& out);

// Whether a text is `req_` and 8 to 64 letters, digits, `-` or `_`. Only such a request id is
// repeated in headers and logs.
bool IsRequestId(std::string_view text);

// Whether a text is the trace id of a W3C traceparent (Trace Context, section 3.2.2.3): 32
// lower-case hexadecimal digits, not all zeros.
bool IsTraceId(std::string_view text);

// A new request id: `req_` and 32 random hexadecimal digits.
std::string MakeRequestId();

// Makes `id` the request's id, or a new one when it has none of that form.
void AssignRequestId(const Request& request, std::string& id);

// A request by its FastCGI parameters, or the environment variables of a CGI program: RFC 3875's,
// and those that nginx adds. `parameter` takes a name and returns a value, empty when there is
// none.
template <typename Parameter>
Request RequestFrom(Parameter parameter) {
  return {.method = parameter("REQUEST_METHOD"),
          .cookie = parameter("HTTP_COOKIE"),
          .sec_fetch_site = parameter("HTTP_SEC_FETCH_SITE"),
          .request_id = parameter("REQUEST_ID"),
          .trace_id = parameter("KEYS_TRACE_ID"),
          .has_api_key = !parameter("KEYS_HAS_API_KEY").empty(),
          .status_page = parameter("KEYS_STATUS_PAGE")};
}

}  // namespace keys

#endif  // HANDLER_API_HTTP_H_
