#include "handler/api/http.h"

#include <charconv>
#include <cstdint>
#include <random>

#include "handler/api/api_error.h"

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
  char number[24];
  const auto append_number = [&](auto value) {
    out.append(number, std::to_chars(number, number + sizeof number, value).ptr);
  };
  out += "Status: ";
  append_number(response.status);
  out += ' ';
  out += ReasonPhrase(response.status);
  out += "\r\nContent-Type: ";
  out += response.content_type;
  out += "\r\nContent-Length: ";
  append_number(response.content().size());
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
  return text.size() == 32 &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos &&
         text.find_first_not_of('0') != std::string_view::npos;
}

std::string MakeRequestId() {
  static std::random_device random;
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string id = "req_";
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = random();
    for (int digit = 0; digit < 8; ++digit, bits >>= 4) id += kDigits[bits & 15];
  }
  return id;
}

}  // namespace keys
