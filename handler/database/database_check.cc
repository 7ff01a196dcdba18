#include "handler/database/database_check.h"

#include <libpq-fe.h>
#include <poll.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "handler/base/clock.h"
#include "handler/database/conninfo.h"
#include "handler/database/pg_result.h"

namespace keys {
namespace {

constexpr std::chrono::seconds kMaxStatement{3};
constexpr char kMaxConnect[] = "3";  // seconds per host, as libpq wants it

// Identifies the backend that answers. A transaction pooler uses several for one connection.
constexpr char kBackend[] =
    "SELECT pg_backend_pid()::text || ' of ' || pg_postmaster_start_time()::text";

// The tables whose rows row security hides, each with the role that cannot see them. The view
// live_sessions reads with the privileges of its owner. A role sees every row when a permissive
// policy has the condition `true`, and no restrictive policy has another condition (CREATE POLICY,
// "Policies Applied by Command Type").
constexpr char kHiddenTables[] = R"sql(
WITH needed(schema_name, table_name, command, reader) AS (
    SELECT schema_name, table_name, command, (SELECT oid FROM pg_roles WHERE rolname = current_user)
    FROM (VALUES ('public', 'tiers', 'r'), ('public', 'accounts', 'r'), ('public', 'api_keys', 'r'),
        ('public', 'request_counts', 'r'), ('public', 'request_counts', 'a'), ('public', 'request_counts', 'w')
    ) AS own(schema_name, table_name, command)
    UNION ALL
    SELECT 'auth', table_name, 'r', view.relowner
    FROM (VALUES ('users'), ('sessions')) AS theirs(table_name),
        pg_class AS view JOIN pg_namespace ON pg_namespace.oid = view.relnamespace
    WHERE nspname = 'keys_private' AND view.relname = 'live_sessions'
), applied AS (
    SELECT p.polrelid, p.polpermissive, p.polcmd, n.command, n.reader,
        pg_get_expr(CASE WHEN n.command = 'a' THEN coalesce(p.polwithcheck, p.polqual) ELSE p.polqual END,
            p.polrelid) AS condition
    FROM needed AS n, pg_policy AS p
    WHERE p.polcmd IN ('*', n.command::"char") AND EXISTS (
        SELECT FROM unnest(p.polroles) AS role(id)
        WHERE CASE WHEN id = 0 THEN true ELSE pg_has_role(n.reader, id, 'USAGE') END)
)
SELECT string_agg(DISTINCT format('%s.%s from %s', n.schema_name, n.table_name, r.rolname), ', ')
FROM needed AS n
JOIN pg_namespace ON pg_namespace.nspname = n.schema_name
JOIN pg_class AS c ON c.relnamespace = pg_namespace.oid AND c.relname = n.table_name
JOIN pg_roles AS r ON r.oid = n.reader
WHERE c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
    AND NOT (pg_has_role(n.reader, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity)
    AND NOT coalesce((
        SELECT bool_or(polpermissive AND condition = 'true') AND bool_and(polpermissive OR condition = 'true')
        FROM applied AS a
        WHERE a.polrelid = c.oid AND a.command = n.command AND a.reader = n.reader), false)
)sql";

[[noreturn]] void Fail(const std::string& reason) {
  throw std::runtime_error("database: " + reason);
}

// A connection in the foreground.
class Session {
 public:
  explicit Session(const std::string& url) {
    const char* const names[] = {"dbname", "connect_timeout", "client_encoding", nullptr};
    const char* const values[] = {url.c_str(), kMaxConnect, "UTF8", nullptr};
    connection_.reset(PQconnectdbParams(names, values, 1));
  }

  bool is_connected() const { return PQstatus(connection_.get()) == CONNECTION_OK; }
  std::string Message() const { return OneLine(PQerrorMessage(connection_.get())); }

  std::string_view Parameter(const char* name) const {
    const char* const value = PQparameterStatus(connection_.get(), name);
    return value == nullptr ? "" : value;
  }

  // Runs a statement and returns the first column of its first row; empty when it has no rows.
  // Throws the server's error, or a timeout.
  std::string Ask(const char* statement, int count = 0, const char* const* parameters = nullptr) {
    if (PQsendQueryParams(connection_.get(), statement, count, nullptr, parameters, nullptr,
                          nullptr, 0) != 1) {
      Fail(Message());
    }
    std::string value;
    for (const auto deadline = Clock::now() + kMaxStatement;;) {
      AwaitResult(deadline);
      const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(connection_.get()),
                                                                 &PQclear);
      if (!result) return value;
      const ExecStatusType status = PQresultStatus(result.get());
      if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        Fail(OneLine(PQresultErrorMessage(result.get())));
      }
      if (PQntuples(result.get()) > 0) value = PQgetvalue(result.get(), 0, 0);
    }
  }

 private:
  // The server's statement_timeout does not cover the time that a pooler holds a statement back.
  void AwaitResult(Clock::time_point deadline) {
    while (PQisBusy(connection_.get()) != 0) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      pollfd socket{PQsocket(connection_.get()), POLLIN, 0};
      if (left <= 0 || poll(&socket, 1, static_cast<int>(left)) == 0) {
        Fail("no answer to a statement within " + std::to_string(kMaxStatement.count()) + " s");
      }
      if (PQconsumeInput(connection_.get()) != 1) Fail(Message());
    }
  }

  std::unique_ptr<PGconn, decltype(&PQfinish)> connection_{nullptr, &PQfinish};
};

void CheckEncoding(const Session& session) {
  const std::string encoding(session.Parameter("server_encoding"));
  if (encoding == "UTF8") return;
  Fail("its encoding is " + encoding +
       ", which cannot give every text as UTF-8; restore a dump into a database made with createdb"
       " --template=template0 --encoding=UTF8");
}

// A pooler in transaction mode gives the backend that a connection has just used to the next
// connection that begins a transaction, and then gives another backend to the first connection.
bool SharesBackends(Session& session, const std::string& url) {
  const std::string backend = session.Ask(kBackend);
  if (session.Ask(kBackend) != backend) return true;
  Session other(url);
  if (!other.is_connected()) return false;  // no second connection, so nothing is shared now
  try {
    other.Ask("BEGIN");
    if (other.Ask(kBackend) == backend) return true;
  } catch (const std::runtime_error&) {  // a pooler in session mode without a second backend
    return false;
  }
  return session.Ask(kBackend) != backend;
}

void CheckSight(Session& session) {
  const std::string hidden = session.Ask(kHiddenTables);
  if (!hidden.empty()) {
    Fail("row security hides the rows of " + hidden +
         "; apply sql/ again: sql/2-schema.sql has the policies, sql/3-roles.sql the view");
  }
  if (session.Ask("SELECT name FROM public.tiers WHERE name = 'free'").empty()) {
    Fail("the table public.tiers shows no tier 'free'; apply sql/ again");
  }
}

}  // namespace

void CheckDatabase(const std::string& url, const std::string& sql) {
  const Conninfo conninfo(url);  // first, because libpq's messages would quote the URL
  Session session(url);
  if (!session.is_connected()) Fail(session.Message());
  CheckEncoding(session);
  if (SharesBackends(session, url)) {
    Fail(
        "a pooler in transaction mode is between: two statements of one connection did not meet the"
        " same backend; use session mode (Supabase: port 5432) or connect directly");
  }
  const char* const nobody[] = {"{}", "{}", "{}"};
  session.Ask(sql.c_str(), 3, nobody);
  CheckSight(session);
}

}  // namespace keys
