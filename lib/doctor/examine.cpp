#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/background.h"
#include "base/host.h"
#include "comm/mpi_library.h"
#include "comm/nccl_library.h"
#include "data/arrow_rows.h"
#include "doctor/facts.h"

namespace tptrain::doctor {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int64_t limit_of(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  return static_cast<int64_t>(limit.rlim_cur);
}

/// The first line that mpirun prints of its version.
std::string mpirun_version() {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen("mpirun --version 2>/dev/null", "r"),
                                                   ::pclose);
  if (!pipe) return "";
  char line[256] = {};
  if (std::fgets(line, sizeof line, pipe.get()) == nullptr) return "";
  std::string text = line;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int64_t size_of_shared_memory() {
  struct statvfs facts {};
  if (::statvfs("/dev/shm", &facts) != 0) return 0;
  return static_cast<int64_t>(facts.f_blocks) * static_cast<int64_t>(facts.f_frsize);
}

}  // namespace

Facts examine(const std::string& run_dir) {
  std::error_code failed;
  Facts facts{
      .gpus = device::host_gpus(),
      .gpu_devices = std::filesystem::exists("/dev/nvidiactl", failed),
      .queues = environment("CUDA_DEVICE_MAX_CONNECTIONS"),
      .mpi_library = comm::mpi_library(),
      .mpirun = mpirun_version(),
      .locked_memory_bytes = limit_of(RLIMIT_MEMLOCK),
      .open_files = limit_of(RLIMIT_NOFILE),
      .shared_memory_bytes = size_of_shared_memory(),
      .memory_bytes = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE),
      .available_memory_bytes = available_host_memory().available_bytes,
      .cores = usable_cores(),
      .reads_parquet = data::reads_arrow()};
  const comm::NcclLibrary nccl = comm::nccl_library();
  facts.gpus.nccl = nccl.loaded;
  facts.gpus.nccl_built = nccl.built;
  if (!run_dir.empty()) facts.directory = try_directory(run_dir);
  return facts;
}

}  // namespace tptrain::doctor
