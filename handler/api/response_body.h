// The response bodies: the contract, field by field, written by RapidJSON.
//
//   200  {"data":[{id, key_prefix, key_preview, name, tier, scopes, rate_limit_per_minute,
//         rate_limit_per_day, total_requests, last_used_at, created_at, expires_at, revoked_at}…],
//         "meta":{"total":n}}
//   else {"error":{"code","message","details"?,"request_id"}}
//
// Times are RFC 3339 in UTC to the second, cut, not rounded. Thread rule: one thread.
#ifndef HANDLER_API_RESPONSE_BODY_H_
#define HANDLER_API_RESPONSE_BODY_H_

#include <string>
#include <string_view>

#include "handler/api/rate_limit.h"
#include "handler/database/key_list.h"

namespace keys {

// Both replace `body`. False when a text is not UTF-8, which a database of that encoding rules out,
// or a key is null; `body` is then invalid.
bool WriteKeyList(size_t keys, const KeyAt& key_at, std::string& body);

// `over`, where given, becomes `details`: limit, window and reset.
bool WriteError(std::string_view code, std::string_view message, std::string_view request_id,
                const Window* over, std::string& body);

// "2026-05-17T09:42:11Z".
std::string FormatTime(DatabaseTime time);

}  // namespace keys

#endif  // HANDLER_API_RESPONSE_BODY_H_
