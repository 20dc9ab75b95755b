// tptrain train: the training run, from mpirun's arguments to the exit code.
#include <chrono>
#include <string>
#include <vector>

#include "base/progress_board.h"
#include "base/text.h"
#include "base/watchdog.h"
#include "cli.h"
#include "comm/launcher.h"
#include "comm/mpi_session.h"
#include "comm/rank_boards.h"
#include "commands/commands.h"
#include "job.h"
#include "train/hang_timeout.h"
#include "train/run.h"
#include "version.h"

namespace tptrain::apps {

namespace {

/// The words as a shell takes them.
std::string shell_line(const std::vector<std::string>& words) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
  std::vector<std::string> quoted;
  for (const std::string& word : words) {
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      quoted.push_back(word);
      continue;
    }
    std::string inside;
    for (const char c : word) inside += c == '\'' ? std::string("'\\''") : std::string(1, c);
    quoted.push_back("'" + inside + "'");
  }
  return join(quoted, " ");
}

}  // namespace

int run_train(const TrainCommand& command, int* argc, char*** argv) {
  const auto process_start = std::chrono::steady_clock::now();
  const std::string command_line = shell_line({*argv, *argv + *argc});
  comm::refuse_tasks_without_mpi();
  ProgressBoard board;
  board.enter("starting MPI");
  const auto limit = train::early_hang_timeout(command.config, command.sets);
  Watchdog watchdog(board, {.limit = limit, .rank = comm::launched_rank().value_or(0)});
  comm::MpiSession session(argc, argv, &board);
  const std::shared_ptr<comm::RankBoards> boards = comm::boards_of(session);
  watchdog.set(comm::watchdog_options(boards, limit));
  const int code = run_job(session, [&] {
    comm::refuse_lonely_task(session.size());
    return train::run_training(session, {.config_path = command.config,
                                         .overrides = command.sets,
                                         .program = program_version(),
                                         .command_line = command_line,
                                         .process_start = process_start,
                                         .watchdog = watchdog,
                                         .boards = boards});
  });
  board.enter("ending MPI");
  return code;
}

}  // namespace tptrain::apps
