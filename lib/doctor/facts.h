// What `tptrain doctor` looks at, as plain values: what follows from them (findings.h) can be tried
// with facts made up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "device/host_gpus.h"

namespace tptrain::doctor {

inline constexpr int64_t kUnlimited = -1;

/// A folder that a run is to write to, and what came of trying.
struct DirectoryFacts {
  std::string path = {};
  std::string file_system = {};           // "ext4", "nfs", ...; "": not one of those known here
  std::optional<bool> of_all_hosts = {};  // a network file system; nothing: not known
  std::string failed = {};    // what a save would do and the folder does not let; "": all went
  std::string no_locks = {};  // why files cannot be locked; "": they can
  int64_t free_bytes = 0;
  double write_mib_per_s = 0;  // with fsync
};

struct Facts {
  device::HostGpus gpus = {};
  bool gpu_devices = false;  // /dev/nvidia0 or the like is there
  std::string queues = {};   // CUDA_DEVICE_MAX_CONNECTIONS; "": unset
  std::string mpi_library = {};
  std::string mpirun = {};  // what `mpirun --version` says first; "": there is none on the PATH
  int64_t locked_memory_bytes = kUnlimited;
  int64_t open_files = kUnlimited;
  int64_t shared_memory_bytes = 0;  // size of /dev/shm; 0: there is none
  int64_t memory_bytes = 0;
  int64_t available_memory_bytes = 0;  // within the limit of a container or a job
  int cores = 0;
  bool reads_parquet = false;  // the program was built with Arrow
  std::optional<DirectoryFacts> directory = {};
};

/// Of this host. `run_dir` may be empty: then no directory is tried. Never throws.
Facts examine(const std::string& run_dir);

/// Writes, locks, renames and removes a file of its own in `path`, or in the nearest folder above
/// it that is there. Never throws.
DirectoryFacts try_directory(const std::string& path);

}  // namespace tptrain::doctor
