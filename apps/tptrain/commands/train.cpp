// tptrain train: the training run, from mpirun's arguments to the exit code.
#include <chrono>

#include "cli.h"
#include "comm/mpi_session.h"
#include "commands/commands.h"
#include "job.h"
#include "train/run.h"

namespace tptrain::apps {

int run_train(const TrainCommand& command, int* argc, char*** argv) {
  const auto process_start = std::chrono::steady_clock::now();
  comm::MpiSession session(argc, argv);
  return run_job(session, [&] {
    return train::run_training(
        session,
        {.config_path = command.config, .overrides = command.sets, .process_start = process_start});
  });
}

}  // namespace tptrain::apps
