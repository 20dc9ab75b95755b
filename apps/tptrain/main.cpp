// tptrain: the command line, the verb it names, and the one place where an error becomes a message
// and an exit code. (A rank of a running training job leaves through run_job, which ends the other
// ranks with it.)
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "base/error.h"
#include "base/printable.h"
#include "base/stop.h"
#include "base/terminal_colour.h"
#include "base/text.h"
#include "cli.h"
#include "comm/launcher.h"
#include "commands/commands.h"
#include "device/gpu_environment.h"

namespace tptrain::apps {
namespace {

struct Run {
  int argc;
  char** argv;

  int operator()(const TrainCommand& command) { return run_train(command, &argc, &argv); }
  int operator()(const LaunchCommand& command) { return run_launch(command); }
  int operator()(const PlanCommand& command) { return run_plan(command); }
  int operator()(const GenerateCommand& command) { return run_generate(command, argc, argv); }
  int operator()(const EvaluateCommand& command) { return run_evaluate(command, argc, argv); }
  int operator()(const PrepareCommand& command) { return run_prepare(command); }
  int operator()(const ExportCommand& command) { return run_export(command); }
  int operator()(const InspectCommand& command) { return run_inspect(command); }
  int operator()(const VerifyCommand& command) { return run_verify(command); }
  int operator()(const ReportCommand& command) { return run_report(command); }
  int operator()(const WatchCommand& command) { return run_watch(command); }
  int operator()(const DoctorCommand& command) { return run_doctor(command); }
  int operator()(const FetchCommand& command) { return run_fetch(command); }
  int operator()(const TokenizeCommand& command) { return run_tokenize(command); }
  int operator()(const SchemaCommand& command) { return run_schema(command); }
  int operator()(const PrintCommand& command) {
    std::cout << command.text;
    return 0;
  }
};

/// What goes wrong before MPI is up, a usage error above all, goes wrong on every rank alike: under
/// a launcher only rank 0 says it.
bool speaks_for_the_job() { return comm::launched_rank().value_or(0) == 0; }

int run(int argc, char** argv) {
  block_stop_signals();  // front.cpp has done it already, where it was there
  const Command command = parse_cli(argc, argv);
  if (std::holds_alternative<TrainCommand>(command) ||
      std::holds_alternative<LaunchCommand>(command)) {
    heed_stop_signals();
  } else {
    unblock_stop_signals();
  }
  const int code = std::visit(Run{argc, argv}, command);
  std::cout.flush();
  // A full disk or a closed pipe must not pass for success.
  if (!std::cout) throw InternalError(problem("standard output could not be written"));
  return code;
}

int code_after_telling(const std::exception& e) {
  const auto* error = dynamic_cast<const Error*>(&e);
  const auto code = error != nullptr ? error->code() : ExitCode::internal;
  std::cout.flush();
  if (code != ExitCode::config || speaks_for_the_job()) {
    const std::string message =
        cat(error != nullptr ? "" : "internal error: ", printable(e.what()));
    std::cerr << error_text(message, STDERR_FILENO) << "\n";
  }
  return static_cast<int>(code);
}

// Without exit handlers and static destructors: they are those of the libraries, all of ours is
// closed and written, and a rank that hung in one, in a driver's say, would be seen by nobody: its
// watchdog is gone, as MPI is, and mpirun would wait for it for ever.
[[noreturn]] void leave(int code) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::exit(code);  // leaks are counted, and races become an exit code, in a handler
#else
  std::fflush(nullptr);
  _exit(code);
#endif
}

}  // namespace
}  // namespace tptrain::apps

int main(int argc, char** argv) {
  tptrain::device::ask_for_queues();  // before anything can touch the driver
  int code = 0;
  try {
    code = tptrain::apps::run(argc, argv);
  } catch (const std::exception& error) {
    code = tptrain::apps::code_after_telling(error);
  }
  tptrain::apps::leave(code);
}
