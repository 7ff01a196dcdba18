#include "handler/cgi.h"

#include <sys/epoll.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "handler/api/http.h"
#include "handler/api/list_keys.h"
#include "handler/api/metrics.h"
#include "handler/base/clock.h"
#include "handler/base/log.h"
#include "handler/base/unique_fd.h"
#include "handler/database/key_list.h"
#include "handler/database/lookup_batcher.h"

namespace keys {
namespace {

std::string_view Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view{} : std::string_view(value);
}

}  // namespace

int AnswerCgi(const Config& config, KeyFiles& key_files) {
  Metrics metrics(config.metrics_file);
  metrics.LogProblem();
  ListKeys list_keys(config, metrics);
  RequestContext context;
  Response response;
  std::string body;  // the response keeps a view of it
  if (list_keys.Authorize(RequestFrom(Variable), key_files.keys(), Moment::Now(), context,
                          response)) {
    bool answered = false;
    const UniqueFd epoll(NeedFd(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
    context.asked = Clock::now();
    LookupBatcher batcher(
        {.url = config.database_url,
         .sql = ListKeysStatement(config.token.require_session),
         .deadline = config.deadline,
         .epoll = epoll.get()},
        [&](std::span<const Waiter>, const LookupResult& result) {
          WriteListBody(result, body);
          list_keys.Respond(result, 0, body, Moment::Now(), context, response);
          answered = true;
        },
        context.asked);
    batcher.Submit(0, context.user, context.session, context.asked);
    batcher.Send(context.asked);
    while (!answered) {
      epoll_event event{};
      const int count = epoll_wait(epoll.get(), &event, 1, MillisecondsUntil(batcher.NextTime()));
      const Clock::time_point now = Clock::now();
      if (count > 0) batcher.OnEvent(now);
      batcher.OnTime(now);
      batcher.Send(now);
    }
  }
  LogRequest(context, response, Moment::Now(), metrics);
  std::string out;
  AppendCgiResponse(response, context.request_id, context.head_only, out);
  const bool written =
      std::fwrite(out.data(), 1, out.size(), stdout) == out.size() && std::fflush(stdout) == 0;
  FlushLog();
  return written ? 0 : 1;
}

}  // namespace keys
