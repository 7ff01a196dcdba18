#include "handler/api/http.h"

#include <cstdint>
#include <random>

#include "handler/api/api_error.h"
#include "handler/base/text.h"

namespace keys {

void Response::Clear() {
  status = 200;
  error.reset();
  content_type = "application/json";
  headers.clear();
  body.clear();
  list = {};
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Unknown";
  }
}

void AppendCgiHead(const Response& response, std::string_view request_id, std::string& out) {
  out += "Status: ";
  AppendNumber(out, response.status);
  out += ' ';
  out += ReasonPhrase(response.status);
  out += "\r\nContent-Type: ";
  out += response.content_type;
  out += "\r\nContent-Length: ";
  AppendNumber(out, static_cast<int64_t>(response.content().size()));
  out +=
      "\r\nCache-Control: no-store\r\nVary: Cookie\r\nX-Content-Type-Options: nosniff\r\n"
      "Cross-Origin-Resource-Policy: same-origin\r\nX-Request-Id: ";
  out += request_id;
  out += "\r\n";
  if (response.error) {
    out += "X-Keys-Error: ";  // for nginx's access log; nginx hides it from clients
    out += CodeOf(response.error);
    out += "\r\n";
  }
  out += response.headers;
  out += "\r\n";
}

void AppendCgiResponse(const Response& response, std::string_view request_id, bool head_only,
                       std::string& out) {
  AppendCgiHead(response, request_id, out);
  if (!head_only) out += response.content();
}

bool IsRequestId(std::string_view text) {
  if (!text.starts_with("req_") || text.size() < 12 || text.size() > 68) return false;
  for (const char c : text) {
    const bool known = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '_' || c == '-';
    if (!known) return false;
  }
  return true;
}

bool IsTraceId(std::string_view text) {
  return text.size() == 32 && text.find_first_not_of(kHexDigits) == std::string_view::npos &&
         text.find_first_not_of('0') != std::string_view::npos;
}

std::string MakeRequestId() {
  static std::random_device random;
  std::string id = "req_";
  for (int half = 0; half < 2; ++half) AppendHex(id, uint64_t{random()} << 32 | random());
  return id;
}

void AssignRequestId(const Request& request, std::string& id) {
  id.assign(request.request_id);
  if (!IsRequestId(id)) id = MakeRequestId();
}

}  // namespace keys
