// keys-fcgi: settings -> keys -> one of its modes.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "handler/api/api_error.h"
#include "handler/api/metrics.h"
#include "handler/auth/key_files.h"
#include "handler/base/log.h"
#include "handler/cgi.h"
#include "handler/config.h"
#include "handler/database/database_check.h"
#include "handler/database/key_list.h"
#include "handler/server.h"
#include "version.h"

namespace {

constexpr char kUsage[] =
    "keys-fcgi: GET /api/v1/keys over FastCGI\n"
    "\n"
    "  keys-fcgi                    serve the listening socket given as fd 0 (spawn-fcgi) or by\n"
    "                               LISTEN_FDS (systemd); with neither, answer the one CGI "
    "request\n"
    "                               in the environment (REQUEST_METHOD, HTTP_COOKIE) on stdout\n"
    "  keys-fcgi --check            try settings, keys and database, say what is wrong\n"
    "  keys-fcgi --check-keys FILE  say what is wrong with a JWK set; one without a usable key is "
    "good\n"
    "                               only where KEYS_JWT_SECRET_FILE names a secret\n"
    "  keys-fcgi --version, --help\n"
    "\n"
    "Exit status: 0 served, answered or nothing wrong; 1 otherwise. Log and complaints go to "
    "stderr.\n"
    "\n"
    "Settings, from the environment:\n";

void PrintHelp() {
  std::fputs(kUsage, stdout);
  for (const keys::Setting& setting : keys::Settings()) {
    const std::string meaning =
        std::string(setting.meaning) +
        (setting.default_value.empty() ? "" : " [" + std::string(setting.default_value) + "]");
    std::printf("  %-25s  %s\n", std::string(setting.name).c_str(), meaning.c_str());
  }
}

bool IsListening(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0;
}

// sd_listen_fds(3); else the FastCGI specification's section 2.2; else -1.
int FindListener() {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  if (pid != nullptr && count != nullptr && pid == std::to_string(getpid()) && IsListening(3)) {
    return 3;
  }
  return IsListening(STDIN_FILENO) ? STDIN_FILENO : -1;
}

template <typename Lines>
int Complain(const Lines& problems) {
  for (const auto& problem : problems) std::fprintf(stderr, "keys-fcgi: %s\n", problem.c_str());
  return problems.empty() ? 0 : 1;
}

// A project that signs with the legacy secret alone publishes an empty set. Only the secret's
// setting counts here: the user who checks a set may not be allowed to read the secret.
int CheckKeys(const char* path) {
  const keys::Config config =
      keys::LoadConfig([](const char* name) { return std::getenv(name); }).config;
  const keys::LoadedKeys loaded = keys::LoadJwkSetFile(path);
  for (const std::string& skipped : loaded.skipped) {
    std::fprintf(stderr, "keys-fcgi: skipped: %s\n", skipped.c_str());
  }
  if (loaded.has_no_key && !config.secret_file.empty()) return 0;
  return Complain(loaded.problems);
}

// A web server that runs us as a CGI program gets a response whatever happens.
int FailCgi() {
  keys::Response response;
  const std::string id = keys::MakeRequestId();
  keys::RespondWithError(keys::ApiError::kInternalError, id, nullptr, response);
  std::string out;
  keys::AppendCgiResponse(response, id, false, out);
  std::fwrite(out.data(), 1, out.size(), stdout);
  return 1;
}

// Settings and keys, and everything that is wrong with them.
struct Loaded {
  Loaded()
      : settings(keys::LoadConfig([](const char* name) { return std::getenv(name); })),
        key_files({settings.config.jwks_file, settings.config.secret_file}) {
    if (settings.config.jwks_file.empty() && settings.config.secret_file.empty()) return;
    for (std::string& problem : key_files.Load()) settings.problems.push_back(std::move(problem));
  }
  keys::LoadedConfig settings;
  keys::KeyFiles key_files;
};

// A server or name server that the unit's IPAddressDeny= blocks looks silent.
std::string ExplainSilence(std::string problem) {
  const bool silent = problem.find("timeout expired") != std::string::npos ||
                      problem.find("could not translate host name") != std::string::npos;
  if (silent && std::getenv("INVOCATION_ID") != nullptr) {
    problem +=
        "; does IPAddressAllow= of the unit name it and the name server"
        " (systemctl edit keys-fcgi@.service)?";
  }
  return problem;
}

int Check() {
  Loaded loaded;
  const keys::Config& config = loaded.settings.config;
  std::vector<std::string>& problems = loaded.settings.problems;
  const std::string problem = keys::Metrics(config.metrics_file).TakeProblem();
  if (!problem.empty()) problems.push_back("KEYS_METRICS_FILE " + problem);
  if (!config.database_url.empty()) {
    try {
      keys::CheckDatabase(config.database_url,
                          keys::ListKeysStatement(config.token.require_session));
    } catch (const std::exception& fault) {
      problems.push_back(ExplainSilence(fault.what()));
    }
  }
  keys::FlushLog();
  if (config.deadline >= keys::kNginxReadTimeout) {
    std::fputs(
        "keys-fcgi: note: nginx waits 5 s for an answer (fastcgi_read_timeout in keys-api.conf);"
        " with this KEYS_DEADLINE_MS a slow database gives 504 unless that is raised as well\n",
        stderr);
  }
  if (Complain(problems) != 0) return 1;
  std::puts("keys-fcgi: settings, keys and database are good");
  return 0;
}

int Run() {
  const int listener = FindListener();
  const bool is_cgi = listener < 0 && std::getenv("REQUEST_METHOD") != nullptr;
  if (listener < 0 && !is_cgi) {
    std::fputs("keys-fcgi: no socket on fd 0, no LISTEN_FDS, no REQUEST_METHOD; see --help\n",
               stderr);
    return 1;
  }
  Loaded loaded;
  keys::FlushLog();
  if (Complain(loaded.settings.problems) != 0) return is_cgi ? FailCgi() : 1;
  if (!is_cgi) return keys::Serve(loaded.settings.config, loaded.key_files, listener);
  try {
    return keys::AnswerCgi(loaded.settings.config, loaded.key_files);
  } catch (const std::exception& fault) {
    keys::FlushLog();
    std::fprintf(stderr, "keys-fcgi: %s\n", fault.what());
    return FailCgi();
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A core file would hold secrets and tokens. The limit does not count where cores go into a pipe.
  const rlimit no_core{};
  setrlimit(RLIMIT_CORE, &no_core);
  prctl(PR_SET_DUMPABLE, 0);
  const std::string_view option = argc > 1 ? argv[1] : "";
  try {
    if (option == "--check-keys" && argc == 3) return CheckKeys(argv[2]);
    if (argc == 1) return Run();
    if (option == "--check" && argc == 2) return Check();
    if (option == "--version" && argc == 2)
      return std::printf("keys-fcgi %s\n", keys::kVersion) < 0;
    if (option == "--help" && argc == 2) {
      PrintHelp();
      return 0;
    }
    std::fprintf(stderr, "keys-fcgi: unknown arguments; see --help\n");
    return 1;
  } catch (const std::exception& fault) {
    keys::FlushLog();
    std::fprintf(stderr, "keys-fcgi: %s\n", fault.what());
    return 1;
  }
}
