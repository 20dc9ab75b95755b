#include "comm/launcher.h"

#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return number;
}

struct Tasks {
  const char* launcher;
  int number;
};

/// Several tasks of a launcher that need not have to do with MPI.
std::optional<Tasks> several_tasks() {
  // Of the step that this task belongs to; a batch script itself belongs to none.
  std::optional<int> of_slurm = number_in("SLURM_STEP_NUM_TASKS");
  if (!of_slurm) of_slurm = number_in("SLURM_NTASKS");
  if (of_slurm.value_or(1) > 1) return Tasks{"Slurm", *of_slurm};
  // torchrun sets all three; WORLD_SIZE alone may be anybody's.
  const std::optional<int> of_torch = number_in("WORLD_SIZE");
  if (of_torch.value_or(1) > 1 && number_in("RANK") && number_in("LOCAL_RANK")) {
    return Tasks{"torchrun", *of_torch};
  }
  return std::nullopt;
}

/// Ranks of an mpirun whose library is not the one of this program: each is alone.
[[noreturn]] void refuse_other_mpirun(const char* launcher, int ranks) {
  throw ConfigError(
      problem(cat("the launcher (mpirun of ", launcher, ") has ", ranks,
                  " ranks, but the MPI library of this program does not see them"))
          .must("be started by the mpirun of the MPI that the program is linked with")
          .remedy("tptrain doctor names both: put the mpirun of that library first on the PATH."));
}

[[noreturn]] void refuse(const Tasks& tasks) {
  const bool slurm = std::string_view(tasks.launcher) == "Slurm";
  throw ConfigError(
      problem(cat("the launcher (", tasks.launcher, ") has ", tasks.number,
                  " tasks, but MPI does not connect this one with the others"))
          .must("be one MPI rank of them: each task would train a model of its own")
          .remedy(cat(slurm ? "Start it with srun --mpi=pmix tptrain --config FILE, as "
                              "scripts/slurm/train.sbatch does, or with mpirun."
                            : cat("Start it without torchrun: mpirun -n ", tasks.number,
                                  " tptrain --config FILE."),
                      " To train on one rank alone: mpirun -n 1 tptrain --config FILE.")));
}

}  // namespace

std::optional<int> launched_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const std::optional<int> rank = number_in(variable)) return rank;
  }
  return std::nullopt;
}

void refuse_tasks_without_mpi() {
  for (const char* of_mpi : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(of_mpi) != nullptr) return;
  }
  if (const std::optional<Tasks> tasks = several_tasks()) refuse(*tasks);
}

void refuse_lonely_task(int world_size) {
  if (world_size > 1) return;
  // mpirun says how many it started: one is what was asked for.
  const std::optional<int> of_open_mpi = number_in("OMPI_COMM_WORLD_SIZE");
  const std::optional<int> of_hydra = number_in("PMI_SIZE");
  if (of_open_mpi.value_or(1) > 1) refuse_other_mpirun("Open MPI", *of_open_mpi);
  if (of_hydra.value_or(1) > 1) refuse_other_mpirun("MPICH or Intel MPI", *of_hydra);
  if (of_open_mpi || of_hydra) return;
  if (const std::optional<Tasks> tasks = several_tasks()) refuse(*tasks);
}

}  // namespace tptrain::comm
