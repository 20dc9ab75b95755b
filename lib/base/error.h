// The errors of tptrain: what was received, where, which constraint it broke, and what to do; plus
// the exit code each kind ends the process with. lib/ throws these; only main decides what becomes
// of them.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain {

/// Exit codes of the process; a contract with scripts and schedulers.
enum class ExitCode : int {
  done = 0,
  internal = 1,
  config = 2,
  data = 3,
  checkpoint = 4,
  non_finite = 5,
  communication = 6,  // a collective failed or hung
  stopped = 75,       // stopped on request with state saved: requeue
};

/// One complaint. Built fluently: problem("parallel.tp_size is 4").at("run.yaml:7:12").must("divide
/// ...").remedy("Set ...").
struct Problem {
  std::string where;       // "run.yaml:7:12", a path, "[rank 3] step 57"; may be empty
  std::string received;    // what was found
  std::string constraint;  // what it must be; may be empty
  std::string fix;         // what the user can do; may be empty

  Problem& at(std::string place) &;
  Problem&& at(std::string place) &&;
  /// Appends ": it must <text>" to the message.
  Problem& must(std::string text) &;
  Problem&& must(std::string text) &&;
  Problem& remedy(std::string text) &;
  Problem&& remedy(std::string text) &&;

  /// "where: received: it must constraint.\n  remedy", leaving out what is empty.
  std::string text() const;
};

Problem problem(std::string received);

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, std::string_view kind, const std::vector<Problem>& problems);
  /// Takes a message that is already complete (as another rank sent it).
  Error(ExitCode code, std::string message);

  ExitCode code() const { return code_; }
  /// True where every rank holds this same error at this same point (see comm/control.h, agree): it
  /// may leave through the front door.
  bool agreed() const { return agreed_; }
  void set_agreed() { agreed_ = true; }

 private:
  ExitCode code_;
  bool agreed_ = false;
};

#define TPTRAIN_ERROR_CLASS(Name, exit_code, kind)                                            \
  class Name : public Error {                                                                 \
   public:                                                                                    \
    explicit Name(Problem p) : Error(exit_code, kind, {std::move(p)}) {}                      \
    explicit Name(const std::vector<Problem>& problems) : Error(exit_code, kind, problems) {} \
  }

TPTRAIN_ERROR_CLASS(InternalError, ExitCode::internal, "internal error");
TPTRAIN_ERROR_CLASS(ConfigError, ExitCode::config, "config error");
TPTRAIN_ERROR_CLASS(DataError, ExitCode::data, "data error");
TPTRAIN_ERROR_CLASS(CheckpointError, ExitCode::checkpoint, "checkpoint error");
TPTRAIN_ERROR_CLASS(NumericsError, ExitCode::non_finite, "numerics error");
TPTRAIN_ERROR_CLASS(CommError, ExitCode::communication, "communication error");
#undef TPTRAIN_ERROR_CLASS

}  // namespace tptrain
