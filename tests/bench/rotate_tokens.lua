-- wrk: each request carries the next session token of a file.
--   wrk … -s tests/bench/rotate_tokens.lua URL -- TOKENS [COOKIE-NAME]
-- TOKENS has one token per line; `-` sends no cookie. The last line of the output is a JSON object.
local threads = 0

function setup(thread)
   thread:set("offset", threads)
   threads = threads + 1
end

function init(args)
   requests = {}
   if args[1] == "-" then
      requests[1] = wrk.format("GET")
   else
      for token in io.lines(args[1]) do
         requests[#requests + 1] = wrk.format("GET", nil, { ["Cookie"] = (args[2] or "sb-access-token") .. "=" .. token })
      end
   end
   -- Threads begin apart, so that they do not walk in step.
   at = math.floor(#requests * offset * 0.37) % #requests
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "bytes": %d, "status_errors": %d, "socket_errors": %d, "timeouts": %d, '
         .. '"p50_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "max_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
      errors.connect + errors.read + errors.write, errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, latency.max / 1000))
end
