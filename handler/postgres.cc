#include "handler/postgres.h"

#include <algorithm>
#include <array>

#include "handler/log.h"

namespace keys {
namespace {

// Longer answers are fetched with fewer questions together, to bound the memory they take.
constexpr size_t kLongAnswer = 1024 * 1024;
// libpq's buffer stays as large as the longest row it ever took. A connection that had a row this
// long is replaced when it has had none for kRenewAfter and has nothing to do.
constexpr size_t kLongRow = 1024 * 1024;
constexpr std::chrono::seconds kRenewAfter{5};
// A connection that ends sooner without an answer has failed: a server may end each one it accepts.
constexpr std::chrono::seconds kShortLife{1};

constexpr std::string_view kLockNotAvailable = "55P03";
constexpr std::string_view kReadOnly = "25006";

}  // namespace

Postgres::Postgres(const std::string& url, std::string sql, std::chrono::milliseconds deadline,
                   int epoll, uint64_t tag, Answered answered)
    : targets_(url),
      sql_(std::move(sql)),
      deadline_(deadline),
      epoll_(epoll),
      tag_(tag),
      answered_(std::move(answered)),
      outage_(targets_.hosts(), deadline, Clock::now()) {
  Connect(Clock::now());
}

// --- the connection ------------------------------------------------------------------------------

void Postgres::Connect(Clock::time_point now) {
  state_ = State::kConnecting;
  give_up_at_ = now + kConnectTimeout;
  connection_.emplace(targets_, outage_.host(), epoll_, tag_);
  ContinueConnecting(now);
}

void Postgres::ContinueConnecting(Clock::time_point now) {
  const PgConnection::Connecting progress = connection_->Continue();
  if (progress == PgConnection::Connecting::kUnderWay) return;
  if (progress == PgConnection::Connecting::kFailed) return LoseWithMessage(now);
  state_ = State::kPreparing;
  last_progress_ = now;
  // The server gives up a little before we do, so that a statement which takes too long ends there.
  in_flight_.emplace_back();
  if (!connection_->SetTimeouts(deadline_ * 9 / 10, deadline_ / 16, deadline_ / 4) ||
      !SendPrepare()) {
    LoseWithMessage(now);
  }
}

bool Postgres::SendPrepare() {
  ++statement_;
  in_flight_.emplace_back().statement = statement_;
  return connection_->Prepare(statement_, sql_);
}

// A part of the preparation has been answered.
void Postgres::Prepared(const Batch& batch, const Answer& answer, Clock::time_point now) {
  if (!answer.is_good()) {
    Lose(answer.Message(), answer.sqlstate(), now);
    return;
  }
  if (batch.statement != statement_ || state_ != State::kPreparing) return;
  state_ = State::kReady;
  ready_at_ = now;
  renew_at_ = Clock::time_point::max();
  has_answered_ = false;
  ++reconnects_;
  if (outage_.IsNews(Outage::Event::kConnected)) {
    Log(Level::kInfo, "database_connected",
        {{"host", connection_->host()},
         {"attempts", static_cast<int64_t>(outage_.failures() + 1)}});
  }
}

void Postgres::LoseWithMessage(Clock::time_point now) {
  const std::string message = connection_->Message();
  Lose(message, SqlStateIn(message), now);
}

// The connection, or the attempt to make one, is over.
void Postgres::Lose(std::string_view reason, std::string_view sqlstate, Clock::time_point now) {
  const bool was_ready = state_ == State::kReady;
  const bool was_silent = IsSilent(now);
  std::vector<Question> unanswered;
  for (const Batch& batch : in_flight_) {
    for (const Question& question : batch.questions) {
      if (!question.abandoned) unanswered.push_back(question);
    }
  }
  in_flight_.clear();
  connection_.reset();
  state_ = State::kWaiting;
  // One that has ended a connection alone, too, is to blame: nobody else is refused for it, once.
  const bool is_its_fault = was_ready && !blamed_ && unanswered.size() == 1 &&
                            unanswered[0].alone && unanswered[0].times_sent > 1;
  blamed_ = blamed_ || is_its_fault;
  if (was_ready && (has_answered_ || is_its_fault || now - ready_at_ >= kShortLife)) {
    outage_.Lost(was_silent ? last_progress_ : now, now, was_silent || sqlstate == kReadOnly);
  } else {
    outage_.Failed(now);
  }

  const bool open = outage_.CircuitIsOpen(now);
  const auto hopeless =
      std::stable_partition(unanswered.begin(), unanswered.end(), [&](const Question& question) {
        return !open && question.times_sent < 2 && question.deadline > now;
      });
  if (outage_.IsNews(was_ready ? Outage::Event::kLost : Outage::Event::kUnreachable)) {
    Log(Level::kWarning, was_ready ? "database_lost" : "database_unreachable",
        {{"sqlstate", sqlstate},
         {"in_flight", static_cast<int64_t>(unanswered.size())},
         {"asked_again", static_cast<int64_t>(hopeless - unanswered.begin())},
         {"reason", reason}});
  }
  for (auto question = hopeless; question != unanswered.end(); ++question) {
    AnswerFault(*question, DatabaseFault::kUnavailable, sqlstate);
  }
  unanswered.erase(hopeless, unanswered.end());
  // Each by itself: one of them may be what ends connections.
  for (Question& question : unanswered) question.alone = true;
  waiting_.PutBack(unanswered);
  if (!open) return;
  AnswerWaiting([](const Question&) { return true; }, DatabaseFault::kUnavailable, sqlstate);
}

// --- questions -----------------------------------------------------------------------------------

void Postgres::Submit(uint64_t ticket, const Uuid& user, const Uuid& session,
                      Clock::time_point now) {
  const Question question{
      .ticket = ticket, .user = user, .session = session, .deadline = now + deadline_};
  if (state_ != State::kReady && outage_.CircuitIsOpen(now)) {
    AnswerFault(question, DatabaseFault::kUnavailable, {});
  } else {
    waiting_.Push(question);
  }
}

void Postgres::Cancel(uint64_t ticket) {
  waiting_.Remove([&](const Question& question) { return question.ticket == ticket; });
  for (Batch& batch : in_flight_) {
    for (Question& question : batch.questions) {
      if (question.ticket == ticket) question.abandoned = true;
    }
  }
}

void Postgres::Send(Clock::time_point now) {
  while (state_ == State::kReady && !waiting_.empty() && in_flight_.size() < kMostInFlight) {
    if (!SendBatch(now)) LoseWithMessage(now);
  }
}

bool Postgres::SendBatch(Clock::time_point now) {
  if (in_flight_.empty()) last_progress_ = now;
  Batch& batch = in_flight_.emplace_back();
  batch.questions = waiting_.Take(most_together_);
  batch.statement = statement_;
  for (Question& question : batch.questions) {
    ++question.times_sent;
    batch.deadline = std::min(batch.deadline, question.deadline);
  }
  return connection_->Ask(statement_, batch.questions);
}

// --- answers -------------------------------------------------------------------------------------

void Postgres::OnEvent(Clock::time_point now) {
  if (state_ == State::kConnecting) {
    ContinueConnecting(now);
  } else if (state_ != State::kWaiting) {
    const bool is_over = !connection_->Receive();
    TakeAnswers(now);  // what came before the end, a FATAL with its SQLSTATE perhaps
    if (is_over && connection_) LoseWithMessage(now);
  }
}

void Postgres::TakeAnswers(Clock::time_point now) {
  while (connection_) {
    Answer answer;
    const PgConnection::Next next = connection_->TakeAnswer(answer);
    if (next == PgConnection::Next::kNothing) return;
    last_progress_ = now;
    if (next == PgConnection::Next::kEnd) {
      Lose(answer.Message(), answer.sqlstate(), now);
      return;
    }
    // Its Sync has come: the transaction is over, and committed unless there was an error.
    Batch batch = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (batch.questions.empty()) {
      Prepared(batch, answer, now);
    } else if (answer.is_good()) {
      TakeRows(batch, answer, now);
    } else {
      TakeError(batch, answer, now);
    }
  }
}

void Postgres::TakeRows(const Batch& batch, const Answer& answer, Clock::time_point now) {
  has_answered_ = true;
  blamed_ = false;
  outage_.Answered();
  if (answer.memory() > kLongAnswer) {
    most_together_ = std::max<size_t>(batch.questions.size() / 2, 1);
  } else if (answer.memory() < kLongAnswer / 4 && batch.questions.size() == most_together_) {
    most_together_ = std::min(most_together_ * 2, kMostTogether);
  }
  Send(now);  // the server works on while these are answered

  const std::vector<Question>& questions = batch.questions;
  std::array<int, kMostTogether> row_of;  // the question of that number; -1: none
  row_of.fill(-1);
  for (int number = 0; number < answer.rows(); ++number) {
    const Row row = answer.row(number);
    Uuid user;
    row.Bytes(0).copy(reinterpret_cast<char*>(user.bytes.data()), user.bytes.size());
    const auto asked = std::lower_bound(
        questions.begin(), questions.end(), user,
        [](const Question& question, const Uuid& other) { return question.user < other; });
    if (asked == questions.end() || asked->user != user) {  // this is not our statement's answer
      for (const Question& question : questions) {
        AnswerFault(question, DatabaseFault::kInternal, {});
      }
      return;
    }
    row_of[static_cast<size_t>(asked - questions.begin())] = number;
    if (row.length() > kLongRow) renew_at_ = now + kRenewAfter;
  }
  for (size_t i = 0; i < questions.size(); ++i) {
    if (questions[i].abandoned) continue;
    const Row row = answer.row(row_of[i]);
    answered_(questions[i].ticket, row_of[i] < 0 ? nullptr : &row, DatabaseFault::kNone, {});
  }
}

void Postgres::TakeError(Batch& batch, const Answer& answer, Clock::time_point now) {
  const std::string sqlstate = answer.sqlstate();
  const Treatment& treatment = TreatmentOf(sqlstate);
  if (treatment.remedy == Remedy::kReconnect) {
    in_flight_.push_front(std::move(batch));  // it ends with the connection
    return Lose(answer.Message(), sqlstate, now);
  }
  const bool was_alone = batch.questions.front().alone;
  const bool may_help = treatment.remedy != Remedy::kApart || batch.questions.size() > 1 ||
                        (sqlstate == kLockNotAvailable && !was_alone);
  const bool is_remedied = treatment.remedy != Remedy::kNone && may_help;
  std::vector<Question> again;
  for (Question& question : batch.questions) {
    if (is_remedied && question.times_sent < 2 && question.deadline > now && !question.abandoned) {
      question.alone = treatment.remedy == Remedy::kAgain || treatment.remedy == Remedy::kApart;
      again.push_back(question);
    } else {
      AnswerFault(question, treatment.fault, sqlstate);
    }
  }
  waiting_.PutBack(again);
  if (!again.empty()) {
    Log(Level::kInfo, "asked_again",
        {{"sqlstate", sqlstate}, {"questions", static_cast<int64_t>(again.size())}});
  }
  if (treatment.remedy == Remedy::kPrepareAgain && batch.statement == statement_) {
    Log(Level::kInfo, "statement_prepared_again", {{"sqlstate", sqlstate}});
    if (!SendPrepare()) LoseWithMessage(now);
  } else if (sqlstate == kLockNotAvailable && was_alone) {
    // Whoever else waits for this user would wait in vain as well.
    AnswerWaiting(
        [user = batch.questions[0].user](const auto& other) { return other.user == user; },
        treatment.fault, sqlstate);
  }
}

void Postgres::AnswerWaiting(const std::function<bool(const Question&)>& whose, DatabaseFault fault,
                             std::string_view sqlstate) {
  waiting_.Remove([&](const Question& question) {
    if (!whose(question)) return false;
    AnswerFault(question, fault, sqlstate);
    return true;
  });
}

void Postgres::AnswerFault(const Question& question, DatabaseFault fault,
                           std::string_view sqlstate) {
  if (!question.abandoned) answered_(question.ticket, nullptr, fault, sqlstate);
}

// --- time ----------------------------------------------------------------------------------------

void Postgres::TimeOut(Batch& batch, Clock::time_point now) {
  batch.deadline = Clock::time_point::max();
  for (Question& question : batch.questions) {
    if (question.abandoned) continue;
    if (question.deadline > now) {
      batch.deadline = std::min(batch.deadline, question.deadline);
    } else {
      AnswerFault(question, DatabaseFault::kTimeout, {});
      question.abandoned = true;
    }
  }
}

bool Postgres::IsSilent(Clock::time_point now) const {
  return state_ == State::kReady && !in_flight_.empty() && last_progress_ + deadline_ <= now;
}

void Postgres::OnTime(Clock::time_point now) {
  if (waiting_.NextDeadline() <= now) {
    AnswerWaiting([&](const Question& question) { return question.deadline <= now; },
                  DatabaseFault::kTimeout, {});
  }
  for (Batch& batch : in_flight_) {
    if (batch.deadline <= now) TimeOut(batch, now);
  }
  if (state_ == State::kWaiting && outage_.connect_at() <= now) {
    Connect(now);
  } else if ((state_ == State::kConnecting || state_ == State::kPreparing) && give_up_at_ <= now) {
    Lose("no connection within the time for one host", {}, now);
  } else if (IsSilent(now)) {
    // statement_timeout is shorter than the deadline, so a server that is alive would have spoken.
    Lose("the server is silent", {}, now);
  } else if (state_ == State::kReady && in_flight_.empty() && waiting_.empty() &&
             renew_at_ <= now) {
    Connect(now);
  }
}

Clock::time_point Postgres::NextTime() const {
  Clock::time_point next = waiting_.NextDeadline();
  for (const Batch& batch : in_flight_) next = std::min(next, batch.deadline);
  if (state_ == State::kWaiting) return std::min(next, outage_.connect_at());
  if (state_ != State::kReady) return std::min(next, give_up_at_);
  return in_flight_.empty() ? next : std::min(next, last_progress_ + deadline_);
}

}  // namespace keys
