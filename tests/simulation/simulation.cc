// Plays random schedules against the real LookupBatcher, LookupQueue and ReconnectPolicy, on a
// simulated connection, server and clock.
//
//   simulation FIRST COUNT   the schedules of COUNT seeds from FIRST on; `N passed, N failed`
//   simulation SEED          one schedule, told step by step
//
// This file defines PgConnection and Result anew, which replaces those of the library: nothing else
// knows libpq. Held at each step: every request is answered exactly once, none after its deadline
// and a tick, none with another's row; grants are exactly what the server counted and could say;
// the circuit is open while an outage has lasted a deadline, and closed otherwise; nothing is sent
// of who has left or is late; a request fails only for an open circuit, its deadline, or errors
// that its own lookup may have caused. Where a poison lookup is all that is wrong, nobody else's
// request fails; where outages are short, nobody's; where all is well again, requests are answered.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "handler/base/log.h"
#include "handler/database/lookup_batcher.h"
#include "tests/support/list_rows.h"

struct pg_result {
  std::string sqlstate;  // of an error
  bool is_error = false;
  std::vector<keys::ListRow> rows;
};
struct pg_conn {};

namespace keys {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kDeadline{2000};
constexpr milliseconds kTick{1};
constexpr int kLimit = 12;  // grants per user of a schedule

Uuid Id(int number) {
  Uuid uuid;
  uuid.bytes[15] = static_cast<unsigned char>(number);
  return uuid;
}

// What comes back over a connection: a result with its Sync, or the end.
struct Reply {
  Clock::time_point at;
  bool is_end = false;
  pg_result result = {};
  bool is_of_lookups = false;
  std::map<int, int> granted = {};  // by user
};

// What a lookup may be failed for. Its requests share it with those that join it.
struct Blame {
  int failures = 0;       // of statements and connections that it may have caused
  bool is_final = false;  // one that no retry helps
};

// The server's side of a connection.
struct Session {
  enum class Phase { kConnecting, kOpen, kClosed };
  Phase phase = Phase::kConnecting;
  Clock::time_point connected_at;
  std::deque<Reply> replies;
  std::string announced;
  bool is_silent = false;     // nothing comes from it any more, not even its end
  bool has_statement = true;  // as prepared
};

// The server, and the schedule's random choices.
class World {
 public:
  explicit World(uint64_t seed, bool is_verbose) : random(seed), verbose(is_verbose) {
    poison_only = Chance(10);
    short_outages = !poison_only && Chance(8);
    if (poison_only || (!short_outages && Chance(5))) poison_user = 1;
    users = 2 + Below(5);
  }

  bool Chance(int one_in) { return Below(one_in) == 0; }
  int Below(int bound) { return static_cast<int>(random() % static_cast<unsigned>(bound)); }

  bool is_calm() const { return poison_only || short_outages || is_over; }
  bool IsDead(const Uuid& session) const { return session.bytes[15] % 5 == 4; }

  void Say(const std::string& what) const {
    if (verbose) {
      const auto at = std::chrono::duration_cast<milliseconds>(now - kStart).count();
      std::printf("%6lld ms  %s\n", static_cast<long long>(at), what.c_str());
    }
  }

  // No lookup is answered from now on, unless that was so before.
  void Trouble() { trouble_since = trouble_since.value_or(now); }
  // Whether nothing has been answered for a whole deadline.
  bool IsLongTrouble() const {
    return (trouble_since && now - *trouble_since >= kDeadline) ||
           (asked_since && now - *asked_since >= kDeadline);
  }

  bool IsSilent() const {
    return std::any_of(sessions.begin(), sessions.end(),
                       [](const auto& one) { return one.second.is_silent; });
  }

  // A statement is sent.
  void Ask(const Session& session, const std::vector<Lookup>& lookups) {
    on_send(lookups);
    if (asked_since && trouble_since.value_or(now) > *asked_since) trouble_since = asked_since;
    asked_since = now;
    asked = &session;
    asked_for = lookups;
  }
  void EndAsking() {
    asked_since.reset();
    asked = nullptr;
    asked_for.clear();
  }
  // The statement's connection is over; silence counts from its beginning.
  void GiveUp() {
    Trouble();
    if (asked_since && now - *asked_since >= kDeadline) {
      trouble_since = std::min(*trouble_since, *asked_since);
    }
    EndAsking();
  }
  bool IsAsked(const std::pair<int, int>& user_and_session) const {
    return std::any_of(asked_for.begin(), asked_for.end(),
                       [&](const Lookup& lookup) { return KeyOf(lookup) == user_and_session; });
  }
  static std::pair<int, int> KeyOf(const Lookup& lookup) {
    return {lookup.user.bytes[15], lookup.session.bytes[15]};
  }

  void AddFailure(bool is_final) {
    for (const Lookup& lookup : asked_for) {
      ++blames[KeyOf(lookup)].failures;
      blames[KeyOf(lookup)].is_final |= is_final;
      for (const Waiter& waiter : lookup.waiters) failures[waiter.request] += is_final ? 2 : 1;
    }
  }
  // The batcher takes this reply. Blames as error_policy.h has it.
  void Deliver(const Reply& reply, const std::string& announced) {
    const std::string& sqlstate = reply.result.sqlstate;
    const Clock::duration took = asked_since ? now - *asked_since : Clock::duration{};
    if (reply.is_end) {
      if (sqlstate.empty() && announced.empty() && took < kDeadline) AddFailure(false);
      GiveUp();
    } else if (reply.result.is_error && reply.is_of_lookups) {
      BlameFor(sqlstate, took);
    }
    if (reply.is_end || sqlstate == "25006" || sqlstate == "57P01") Trouble();
    if (reply.is_of_lookups) EndAsking();
    if (reply.is_of_lookups && !reply.result.is_error) trouble_since.reset();
    for (const auto& [user, granted] : reply.granted) delivered[user] += granted;
  }
  void BlameFor(const std::string& sqlstate, Clock::duration took) {
    if (sqlstate == "57014" && took >= kDeadline * 8 / 10) AddFailure(true);
    if (sqlstate == "57014" || sqlstate == "25006" || sqlstate == "57P01") return;
    const bool is_single = asked_for.size() == 1;
    AddFailure(sqlstate == "53100" || (is_single && (sqlstate == "42501" || sqlstate == "XX000")));
    if (sqlstate == "55P03" && asked_for.front().alone) {
      blames[{asked_for.front().user.bytes[15], kAnySession}].is_final = true;
    }
  }

  // Whether an attempt to connect that begins now succeeds, and when it is over.
  void Accept(Session& session) {
    session.connected_at = now + milliseconds(is_frozen ? 100000 : 1 + Below(20));
  }

  // The connection ends: with a word of the server's, or without one.
  void End(Session& session, const std::string& sqlstate) {
    if (session.phase == Session::Phase::kClosed) return;
    Trouble();
    std::erase_if(session.replies, [&](const Reply& reply) { return reply.at > now; });
    if (!sqlstate.empty() && asked == &session && session.replies.empty() && Chance(3)) {
      // As an error of the statement, and then the end.
      session.replies.push_back({.at = now,
                                 .result = {.sqlstate = sqlstate, .is_error = true, .rows = {}},
                                 .is_of_lookups = true});
      session.replies.push_back({.at = now, .is_end = true});
    } else if (!sqlstate.empty() && Chance(2)) {
      session.announced = sqlstate;  // as a notice, of which libpq makes no result
      session.replies.push_back({.at = now, .is_end = true});
    } else {
      session.replies.push_back({.at = now,
                                 .is_end = true,
                                 .result = {.sqlstate = sqlstate, .is_error = true, .rows = {}}});
    }
    session.phase = Session::Phase::kClosed;
  }

  void EndAll(const std::string& sqlstate) {
    for (auto& [connection, session] : sessions) {
      if (session.phase == Session::Phase::kOpen) End(session, sqlstate);
    }
  }

  void Execute(Session& session, const std::vector<Lookup>& lookups) {
    const bool has_poison = std::any_of(lookups.begin(), lookups.end(), [&](const Lookup& lookup) {
      return lookup.user == Id(poison_user);
    });
    if (has_poison) return End(session, "");
    if (is_read_only || !session.has_statement) {
      const std::string sqlstate = is_read_only ? "25006" : "26000";
      session.replies.push_back({.at = now + milliseconds(1),
                                 .result = {.sqlstate = sqlstate, .is_error = true, .rows = {}},
                                 .is_of_lookups = true});
      return;
    }
    if (!is_calm() && Chance(12)) {
      static constexpr const char* kErrors[] = {"26000", "0A000", "40001", "40P01", "53100",
                                                "55P03", "57014", "42501", "XX000", "25006"};
      const std::string sqlstate = kErrors[Below(std::size(kErrors))];
      Say("statement fails " + sqlstate);
      session.has_statement &= sqlstate != "26000" && sqlstate != "0A000";
      session.replies.push_back({.at = now + milliseconds(Below(300)),
                                 .result = {.sqlstate = sqlstate, .is_error = true, .rows = {}},
                                 .is_of_lookups = true});
      return;
    }
    const int takes = is_calm() ? 1 + Below(20) : Below(Chance(20) ? 3000 : 30);
    Reply reply{.at = now + milliseconds(takes), .is_of_lookups = true};
    reply.result.rows.push_back(TierRow("free", kLimit, kLimit, kEpoch));
    for (const Lookup& lookup : lookups) {
      if (IsDead(lookup.session)) continue;
      const int wanted = static_cast<int>(lookup.waiters.size());
      int& used = counted[lookup.user.bytes[15]];
      const int granted = std::min(wanted, kLimit - used);
      used += granted;
      reply.granted[lookup.user.bytes[15]] += granted;
      reply.result.rows.push_back(UserRow(lookup.user, granted,
                                          {kLimit, used, kEpoch + std::chrono::minutes(1)},
                                          {1000, used, kEpoch + std::chrono::days(1)}));
    }
    session.replies.push_back(std::move(reply));
    if (!is_calm() && Chance(40)) End(session, Chance(2) ? "57P01" : "");  // it was counted
  }

  static constexpr DatabaseTime kEpoch = std::chrono::sys_days(std::chrono::January / 1 / 2000);
  static constexpr Clock::time_point kStart{std::chrono::hours(1)};
  static constexpr int kAnySession = 255;
  std::mt19937_64 random;
  bool verbose;
  Clock::time_point now = kStart;
  bool is_down = false, is_frozen = false, is_read_only = false;
  bool poison_only = false;
  bool short_outages = false;  // all that goes wrong, and announced
  bool is_over = false;        // nothing goes wrong from now on
  int poison_user = 0;
  int users = 2;
  std::map<int, int> counted;                    // by user
  std::map<int, int> delivered;                  // of those: what the batcher was told
  std::map<std::pair<int, int>, Blame> blames;   // by user and session, since its last answer
  std::map<uint64_t, int> failures;              // by request; 2: it is not to be sent again
  std::vector<Lookup> asked_for;                 // in the statement that was sent last
  const Session* asked = nullptr;                // of which it was asked
  std::optional<Clock::time_point> asked_since;  // without a reply
  std::optional<Clock::time_point> trouble_since = kStart;
  std::function<void(const std::vector<Lookup>&)> on_send;
  std::map<const PgConnection*, Session> sessions;
};

World* world = nullptr;

}  // namespace

// --- libpq's side, simulated ---------------------------------------------------------------------

Row::Row(const pg_result* result, int row) : result_(result), row_(row) {}
int Row::columns() const {
  return static_cast<int>(result_->rows[static_cast<size_t>(row_)].size());
}
std::string_view Row::Bytes(int column) const {
  const auto& value = result_->rows[static_cast<size_t>(row_)][static_cast<size_t>(column)];
  return value ? std::string_view(*value) : std::string_view();
}
void Result::Clear::operator()(pg_result* result) const {
  delete result;
}
bool Result::is_good() const {
  return !result_->is_error;
}
int Result::rows() const {
  return static_cast<int>(result_->rows.size());
}
size_t Result::memory() const {
  return 1000;
}
std::string Result::sqlstate() const {
  return result_ ? result_->sqlstate : "";
}
std::string Result::Message() const {
  return "simulated";
}
std::string OneLine(const char* message) {
  return message;
}
std::string_view SqlStateIn(std::string_view message) {
  return message.substr(0, 5) == "57P03" ? message.substr(0, 5) : std::string_view();
}

PgConnection::PgConnection(const Conninfo&, size_t, int epoll, uint64_t tag)
    : epoll_(epoll), tag_(tag) {
  world->Accept(world->sessions[this]);
}
PgConnection::~PgConnection() {
  if (world->asked == &world->sessions.at(this)) world->GiveUp();
  world->sessions.erase(this);
}
void PgConnection::Close::operator()(pg_conn*) const {}

PgConnection::Progress PgConnection::Continue() {
  Session& session = world->sessions.at(this);
  if (world->is_frozen || world->now < session.connected_at) return Progress::kUnderWay;
  if (world->is_down) {
    world->Trouble();
    return Progress::kFailed;
  }
  session.phase = Session::Phase::kOpen;
  return Progress::kDone;
}
bool PgConnection::Configure(milliseconds, milliseconds, milliseconds) {
  pg_result row;
  row.rows = {{world->is_read_only ? "on" : "off", "on"}};  // and it shows the tiers
  world->sessions.at(this).replies.push_back({.at = world->now + milliseconds(1), .result = row});
  return true;
}
bool PgConnection::Prepare(int, const std::string&) {
  world->sessions.at(this).has_statement = true;
  world->sessions.at(this).replies.push_back({.at = world->now + milliseconds(1)});
  return true;
}
bool PgConnection::Send(int, const std::vector<Lookup>& lookups) {
  Session& session = world->sessions.at(this);
  world->Ask(session, lookups);
  if (session.phase == Session::Phase::kOpen) world->Execute(session, lookups);
  return true;
}
bool PgConnection::Receive() {
  return true;
}
PgConnection::Next PgConnection::TakeResult(Result& result) {
  Session& session = world->sessions.at(this);
  if (world->is_frozen || session.is_silent || session.replies.empty() ||
      session.replies.front().at > world->now) {
    return Next::kNothing;
  }
  const Reply reply = session.replies.front();
  session.replies.pop_front();
  world->Deliver(reply, session.announced);
  announced_end_ = session.announced;
  result = Result(new pg_result(reply.result));
  return reply.is_end ? Next::kEnd : Next::kResult;
}
std::string PgConnection::server() const {
  return "simulated";
}
std::string PgConnection::Message() const {
  return world->is_down ? "57P03" : "";
}

// --- the schedule --------------------------------------------------------------------------------

namespace {

struct Asked {
  int user = 0;
  Uuid session;
  Clock::time_point deadline;
  bool is_open = true;  // neither answered nor cancelled
};

class Schedule {
 public:
  Schedule(uint64_t seed, bool verbose) : world_(seed, verbose) {
    world = &world_;
    world_.on_send = [this](const std::vector<Lookup>& lookups) { CheckSent(lookups); };
    batcher_.emplace(
        LookupBatcher::Options{.url = "host=/simulated",
                               .sql = "",
                               .deadline = kDeadline,
                               .seed = static_cast<uint32_t>(seed)},
        [this](std::span<const Waiter> waiters, const LookupResult& result) {
          OnAnswer(waiters, result);
        },
        world_.now);
  }

  void Play() {
    for (int step = 0; step < 250; ++step) {
      if (world_.short_outages) {
        DisturbBriefly();
      } else if (!world_.poison_only) {
        Disturb();
      }
      // For seconds on end nobody but the poison user asks.
      const int users = world_.poison_only && step % 200 > 20 ? 1 : world_.users;
      for (int burst = world_.Below(4); burst > 0; --burst) Ask(1 + world_.Below(users));
      if (world_.Chance(15)) Cancel();
      PassTime(milliseconds(world_.Below(world_.Chance(10) ? 600 : 40)));
    }
    Heal();
    world_.is_over = true;
    PassTime(3 * kDeadline);
    for (const auto& [id, asked] : asked_) Require(!asked.is_open, "a request was never answered");
    Require(batcher_->connected() && batcher_->queue().empty(), "it does not recover");
    for (const auto& [user, granted] : world_.delivered) {
      Require(granted == granted_[user] + left_[user], "a request that was counted is not granted");
    }
    // The first may meet a connection that has gone silent, and then gives it up.
    const int first = world_.users + 1, second = world_.users + 2;
    for (const int user : {first, second}) {
      Ask(user, 1);
      PassTime(kDeadline + milliseconds(200));
    }
    Require(granted_[second] == 1, "all is well, and a request is refused");
  }

 private:
  static void Require(bool holds, const char* what) {
    if (!holds) throw std::logic_error(what);
  }

  void Disturb() {
    switch (world_.Below(40)) {
      case 0:
        world_.Say("server ends every connection");
        world_.EndAll(world_.Chance(2) ? "57P01" : "");
        break;
      case 1:
        world_.Say("server goes down");
        if (!world_.is_down && !world_.is_read_only) outage_began_ = world_.now;
        world_.is_down = true;
        world_.EndAll(world_.Chance(2) ? "57P01" : "");
        break;
      case 2:
        world_.Say("server freezes");
        outage_began_ = world_.now;
        world_.is_frozen = true;
        world_.Trouble();
        break;
      case 3:
        world_.Say("server is read-only");
        if (!world_.is_down && !world_.is_read_only) outage_began_ = world_.now;
        world_.is_read_only = true;
        world_.EndAll("57P01");
        break;
      case 4:
        world_.Say("connections go silent");
        for (auto& [connection, session] : world_.sessions) session.is_silent = true;
        world_.Trouble();
        break;
      case 5:
      case 6:
      case 7:
        Heal();
        break;
      default:
        break;
    }
  }

  // Outages that are over, with a connection made anew, within a deadline.
  void DisturbBriefly() {
    if (world_.is_down && world_.now >= heal_at_) Heal();
    if (world_.is_down || world_.now < outage_began_ + milliseconds(300) || !world_.Chance(10)) {
      return;
    }
    world_.Say("server restarts");
    outage_began_ = world_.now;
    heal_at_ = world_.now + milliseconds(world_.Below(1000));
    world_.is_down = true;
    world_.EndAll("57P01");
  }

  void Heal() {
    if (world_.is_down || world_.is_frozen || world_.is_read_only) world_.Say("server is well");
    outage_began_ = world_.now;
    world_.is_down = world_.is_frozen = world_.is_read_only = false;
  }

  void Ask(int user, int session = 0) {
    const uint64_t id = ++last_id_;
    Asked& asked = asked_[id];
    asked.user = user;
    asked.session = Id(session != 0 ? session : world_.Below(8));
    asked.deadline = world_.now + kDeadline;
    const bool is_refused = batcher_->circuit_is_open(world_.now);
    batcher_->Submit(id, Id(user), asked.session, world_.now);
    Require(is_refused != asked_.at(id).is_open,
            "an open circuit refuses at once, a closed one not");
    Require(!is_refused || world_.IsLongTrouble(), "the circuit is open after a short outage");
    // That a connection says nothing is known by the statement that waits; that it ends, at once.
    const bool is_quiet = world_.is_frozen || world_.IsSilent();
    const bool is_gone = (world_.is_down || world_.is_read_only) && !is_quiet;
    const bool is_mute = world_.is_frozen && world_.asked_since &&
                         world_.now - *world_.asked_since > kDeadline + kTick;
    const bool is_long = is_mute || (is_gone && world_.now - outage_began_ > kDeadline + kTick);
    Require(!is_long || is_refused, "the circuit is closed after an outage of a whole deadline");
  }

  void Cancel() {
    for (auto& [id, asked] : asked_) {
      if (!asked.is_open) continue;
      asked.is_open = false;
      batcher_->Cancel(id);
      return;
    }
  }

  // To each moment at which something happens, as the event loop does.
  void PassTime(Clock::duration time) {
    const Clock::time_point until = world_.now + time;
    for (int turns = 0;; ++turns) {
      Require(turns < 100000, "it spins");
      for (bool more = true; more;) {
        more = HasNews();
        if (more) batcher_->OnEvent(world_.now);
      }
      batcher_->OnTime(world_.now);
      batcher_->Send(world_.now);
      CheckDeadlines();
      if (HasNews()) continue;
      const Clock::time_point next =
          std::max(std::min({batcher_->NextTime(), NextNews(), until}), world_.now + kTick);
      if (next > until) break;
      world_.now = next;
    }
    world_.now = until;
  }

  bool HasNews() const { return NextNews() <= world_.now && !world_.is_frozen; }

  Clock::time_point NextNews() const {
    Clock::time_point next = Clock::time_point::max();
    if (world_.is_frozen) return next;
    for (const auto& [connection, session] : world_.sessions) {
      if (session.phase == Session::Phase::kConnecting) next = std::min(next, session.connected_at);
      if (!session.replies.empty() && !session.is_silent)
        next = std::min(next, session.replies.front().at);
    }
    return next;
  }

  void CheckDeadlines() const {
    for (const auto& [id, asked] : asked_) {
      Require(!asked.is_open || world_.now <= asked.deadline + kTick, "an answer is late");
    }
  }

  void CheckSent(const std::vector<Lookup>& lookups) const {
    Require(!lookups.empty() && lookups.size() <= LookupBatcher::kMaxBatch, "a batch's size");
    for (size_t i = 0; i < lookups.size(); ++i) {
      Require(i == 0 || lookups[i - 1].user < lookups[i].user, "users out of order, or one twice");
      Require(!lookups[i].alone || lookups.size() == 1, "a suspect is sent with others");
      for (const Waiter& waiter : lookups[i].waiters) {
        Require(asked_.at(waiter.request).is_open, "a request of who left is sent");
        Require(world_.now <= waiter.deadline + kTick, "a request is sent after its deadline");
        const auto failures = world_.failures.find(waiter.request);
        Require(failures == world_.failures.end() || failures->second < 2,
                "a request is sent again that has failed twice, or for good");
      }
    }
  }

  // A fault of a request that is not refused because the circuit is open.
  void CheckFault(const Asked& asked, const LookupResult& result) {
    const bool is_poison = asked.user == world_.poison_user;
    Require(!world_.poison_only || is_poison, "a poison lookup harms a neighbour");
    Require(!world_.short_outages, "a short outage fails a request");
    if (result.fault == DatabaseFault::kTimeout) {
      Require(world_.now >= asked.deadline, "a timeout before the deadline");
      return;
    }
    if (batcher_->circuit_is_open(world_.now)) return;
    const Blame& blame = world_.blames[{asked.user, asked.session.bytes[15]}];
    const bool all_of_user = world_.blames[{asked.user, World::kAnySession}].is_final;
    Require(blame.is_final || blame.failures >= 2 || all_of_user,
            "a request fails that a retry may have answered");
    const bool is_internal = result.sqlstate == "42501" || result.sqlstate == "XX000";
    Require((result.fault == DatabaseFault::kInternal) == is_internal, "the wrong kind of fault");
  }

  void OnAnswer(std::span<const Waiter> waiters, const LookupResult& result) {
    std::set<std::pair<int, int>> answered;
    for (size_t position = 0; position < waiters.size(); ++position) {
      const bool is_granted =
          result.list != nullptr && position < static_cast<size_t>(result.list->granted);
      if (waiters[position].gone) {
        if (is_granted) ++left_[asked_.at(waiters[position].request).user];
        continue;
      }
      const auto found = asked_.find(waiters[position].request);
      Require(found != asked_.end(), "an answer to nobody");
      Asked& asked = found->second;
      Require(asked.is_open, "a second answer, or one to a client that left");
      asked.is_open = false;
      answered.emplace(asked.user, asked.session.bytes[15]);
      if (result.fault != DatabaseFault::kNone) {
        CheckFault(asked, result);
      } else if (result.list == nullptr) {
        Require(world_.IsDead(asked.session), "a live session is called ended");
      } else {
        Require(result.list->user == Id(asked.user), "another's row");
        if (is_granted) {
          Require(!world_.IsDead(asked.session), "an ended session is granted");
          Require(++granted_[asked.user] <= world_.counted[asked.user],
                  "more granted than counted");
        } else {
          Require(world_.counted[asked.user] == kLimit, "refused below the limit");
        }
      }
    }
    if (result.fault == DatabaseFault::kTimeout) return;  // its lookup goes on
    for (const auto& lookup : answered) {
      world_.blames.erase({lookup.first, World::kAnySession});
      // The next batch may be on its way by now, and have failed for somebody of this session.
      if (!world_.IsAsked(lookup)) world_.blames.erase(lookup);
    }
  }

  World world_;
  std::optional<LookupBatcher> batcher_;
  std::map<uint64_t, Asked> asked_;
  std::map<int, int> granted_;  // 200s, by user
  std::map<int, int> left_;     // granted to requests that were gone
  uint64_t last_id_ = 0;
  Clock::time_point outage_began_{};
  Clock::time_point heal_at_{};
};

bool Plays(uint64_t seed, bool verbose) {
  try {
    Schedule(seed, verbose).Play();
    return true;
  } catch (const std::logic_error& broken) {
    std::printf("seed %llu: %s (simulation %llu tells its steps)\n",
                static_cast<unsigned long long>(seed), broken.what(),
                static_cast<unsigned long long>(seed));
    return false;
  }
}

}  // namespace
}  // namespace keys

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: simulation FIRST COUNT | simulation SEED\n");
    return 2;
  }
  const uint64_t first = std::strtoull(argv[1], nullptr, 10);
  const uint64_t count = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 1;
  // What the batcher logs is told with the steps only.
  if (argc == 3 && std::freopen("/dev/null", "w", stderr) == nullptr) return 2;
  uint64_t failed = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    if (!keys::Plays(seed, argc == 2)) ++failed;
  }
  if (argc == 2) keys::FlushLog();
  std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(count - failed),
              static_cast<unsigned long long>(failed));
  return failed == 0 ? 0 : 1;
}
