// What started this process, by the environment alone: known before MPI is up.
#pragma once

#include <optional>

namespace tptrain::comm {

/// This process's rank as mpirun, srun or another launcher with PMI counts; nothing where none of
/// them started it.
std::optional<int> launched_rank();

/// Refuses a process that a launcher started as one of several tasks, but not as an MPI rank: it
/// would train alone, beside the others, into the same run_dir. To be called before MpiSession.
/// Throws ConfigError.
void refuse_tasks_without_mpi();
/// The same where MPI is up and says that there is one rank.
void refuse_lonely_task(int world_size);

}  // namespace tptrain::comm
