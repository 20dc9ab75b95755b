#include "doctor/findings.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "device/gpu_report.h"
#include "device/gpu_support.h"

namespace tptrain::doctor {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

/// Of what a library or an mpirun says of itself. HYDRA starts the ranks of MPICH.
std::string mpi_kind(const std::string& text) {
  const auto says = [&](const char* word) { return text.find(word) != std::string::npos; };
  if (says("Open MPI") || says("OpenRTE")) return "Open MPI";
  if (says("Intel")) return "Intel MPI";
  return says("MPICH") || says("HYDRA") ? "MPICH" : text;
}

class Examination {
 public:
  explicit Examination(const Facts& facts) : facts_(facts) {}

  std::vector<Finding> findings() {
    gpu_libraries();
    mpi();
    limits();
    data();
    if (facts_.directory) directory(*facts_.directory);
    return std::move(findings_);
  }

 private:
  void add(Grade grade, std::string what, std::string found, std::string remedy = "") {
    findings_.push_back({grade, std::move(what), std::move(found), std::move(remedy)});
  }

  void gpu_libraries() {
    const device::HostGpus& host = facts_.gpus;
    if (!host.cuda_build) {
      if (facts_.gpu_devices)
        return add(Grade::warning, "GPUs",
                   "this host has some, but this program was built without CUDA",
                   "Build with cmake --preset cuda; see the README.");
      return add(Grade::fine, "GPUs", "none, and a program for CPUs");
    }
    if (!driver(host)) return;
    if (host.gpus.empty())
      return add(Grade::fault, "GPUs", "the driver shows none",
                 "Look at CUDA_VISIBLE_DEVICES and nvidia-smi; train.device: cpu runs without.");
    for (size_t index = 0; index < host.gpus.size(); ++index) gpu(host, index);
    same_gpus(host);
    links(host);
    library("cuDNN", host.cudnn, host.cudnn_built, "9.19.0", "attention may be slower");
    library("NCCL", host.nccl, host.nccl_built, "2.26.0", "collectives may be slower");
    queues();
  }

  bool driver(const device::HostGpus& host) {
    try {
      device::check_driver(host.driver_cuda, host.runtime_cuda, host.driver);
    } catch (const Error&) {
      const std::string found =
          host.driver_cuda == 0
              ? "none is loaded"
              : cat(host.driver, host.driver.empty() ? "" : ", ", "serves CUDA up to ",
                    device::cuda_version_text(host.driver_cuda), "; ",
                    device::cuda_version_text(host.runtime_cuda), " is needed");
      // A login node has none and needs none.
      add(host.driver_cuda == 0 && !facts_.gpu_devices ? Grade::warning : Grade::fault, "driver",
          found,
          "Install the NVIDIA driver, 580 or newer (in a container: start it with --gpus all or "
          "--nv).");
      return false;
    }
    add(Grade::fine, "driver",
        cat(host.driver, host.driver.empty() ? "" : ", ", "serves CUDA ",
            device::cuda_version_text(host.driver_cuda)));
    return true;
  }

  void gpu(const device::HostGpus& host, size_t index) {
    const device::HostGpu& one = host.gpus[index];
    const std::string what = cat("GPU ", index);
    const std::string found = cat(one.name, ", capability ", one.capability / 10, ".",
                                  one.capability % 10, ", ", human_bytes(one.memory_bytes));
    try {
      device::check_gpu_supported({.name = one.name,
                                   .capability = one.capability,
                                   .runs_this_program = one.runs_this_program},
                                  host.architectures);
    } catch (const Error& error) {
      const std::string text = error.what();
      return add(Grade::fault, what, found, text.substr(text.rfind('\n') + 3));
    }
    add(Grade::fine, what, found);
  }

  void same_gpus(const device::HostGpus& host) {
    std::set<std::string> names;
    for (const device::HostGpu& one : host.gpus) names.insert(one.name);
    if (names.size() > 1)
      add(Grade::warning, "GPUs", cat("of different kinds: ", join(names)),
          "The slowest sets the pace: choose equal ones with CUDA_VISIBLE_DEVICES.");
  }

  void links(const device::HostGpus& host) {
    const auto peers = static_cast<int>(host.gpus.size()) - 1;
    if (peers < 1) return;
    const bool all = std::all_of(host.gpus.begin(), host.gpus.end(),
                                 [&](const auto& one) { return one.mapped_peers == peers; });
    if (!all)
      return add(
          Grade::warning, "links", "not all GPUs map each other's memory (P2P)",
          "nvidia-smi topo -p2p r shows what the driver allows; a container needs --ipc=host.");
    const bool without = std::any_of(host.gpus.begin(), host.gpus.end(),
                                     [](const auto& one) { return one.nvlinks == 0; });
    if (without)
      return add(Grade::warning, "links", "P2P over PCIe, no active NVLink",
                 "Prefer dp to tp here: tp moves activations in every layer.");
    add(Grade::fine, "links",
        cat("P2P, NVLink ",
            host.gpus[0].nvlinks ? cat(*host.gpus[0].nvlinks, " a GPU") : std::string("unknown")));
  }

  void library(const char* what, const std::string& loaded, const std::string& built,
               const std::string& least, const char* consequence) {
    if (loaded.empty()) return;
    const std::string wanted = device::is_older(built, least) ? least : built;
    if (!device::is_older(loaded, wanted)) return add(Grade::fine, what, loaded);
    add(Grade::warning, what, cat(loaded, " is loaded, older than ", wanted, ": ", consequence),
        "Another copy comes first in LD_LIBRARY_PATH; take it out.");
  }

  // main sets what nobody has set (ask_for_queues), and a number of one's own that is no less hurts
  // nobody.
  void queues() {
    if (facts_.queues.empty() || std::atoi(facts_.queues.c_str()) >= device::kQueuesOfPushes)
      return;
    add(Grade::warning, "CUDA_DEVICE_MAX_CONNECTIONS", cat("is set to ", facts_.queues),
        "Leave it unset: the most that CUDA gives is taken then.");
  }

  void mpi() {
    if (facts_.mpirun.empty())
      return add(Grade::fault, "mpirun", "is not on the PATH",
                 "Debian and Ubuntu: sudo apt-get install openmpi-bin; on a cluster: module load "
                 "openmpi.");
    // "mpirun (Open MPI) 4.1.4" and "Open MPI v4.1.4, ...": one launches what the other joins.
    const auto version = [](const std::string& text) {
      const size_t at = text.find_first_of("0123456789");
      return at == std::string::npos
                 ? text
                 : text.substr(at, text.find_first_not_of("0123456789.", at) - at);
    };
    const std::string launcher = version(facts_.mpirun);
    const std::string library = version(facts_.mpi_library);
    const std::string kind = mpi_kind(facts_.mpi_library);
    // Of the others each release joins what its kin starts, and mpirun need not say which it is.
    const bool same_release =
        launcher.substr(0, launcher.find('.')) == library.substr(0, library.find('.'));
    if (mpi_kind(facts_.mpirun) != kind || (kind == "Open MPI" && !same_release))
      return add(Grade::fault, "mpirun",
                 cat("\"", facts_.mpirun, "\", but the program uses ", kind, " ", library),
                 "Ranks would each be alone: put the mpirun of that library first on the PATH.");
    add(Grade::fine, "MPI", cat(kind, " ", library));
  }

  void limits() {
    const auto amount = [](int64_t bytes) {
      return bytes == kUnlimited ? std::string("unlimited") : human_bytes(bytes);
    };
    const bool pins = !facts_.gpus.gpus.empty();
    const bool little =
        facts_.locked_memory_bytes != kUnlimited && facts_.locked_memory_bytes < kGiB;
    add(pins && little ? Grade::warning : Grade::fine, "locked memory",
        amount(facts_.locked_memory_bytes),
        pins && little
            ? "InfiniBand needs more: ulimit -l unlimited (in a container: --ulimit memlock=-1)."
            : "");
    constexpr int64_t kFiles = 4096;
    const bool few = facts_.open_files != kUnlimited && facts_.open_files < kFiles;
    add(few ? Grade::warning : Grade::fine, "open files",
        facts_.open_files == kUnlimited ? "unlimited" : with_thousands(facts_.open_files),
        few ? cat("Many data files or ranks may need more: ulimit -n ", kFiles, ".") : "");
    const bool small = facts_.shared_memory_bytes < 256 * kMiB;
    add(small ? Grade::fault : Grade::fine, "shared memory (/dev/shm)",
        facts_.shared_memory_bytes == 0 ? "there is none" : human_bytes(facts_.shared_memory_bytes),
        small ? "Ranks of a host talk through it. In a container: --ipc=host or --shm-size=8g."
              : "");
    add(facts_.cores < 2 ? Grade::warning : Grade::fine, "cores",
        cat(facts_.cores, ", memory ", human_bytes(facts_.memory_bytes), ", ",
            human_bytes(facts_.available_memory_bytes), " available"),
        facts_.cores < 2 ? "A rank wants a core of its own: look at --cpus-per-task and taskset."
                         : "");
  }

  // Who has no such files misses nothing.
  void data() {
    if (facts_.reads_parquet) return add(Grade::fine, "data", "text, JSON lines, Parquet, Arrow");
    add(Grade::fine, "data", "text and JSON lines; this program was built without Parquet",
        "scripts/setup.sh --parquet adds it, then build again; packages made by "
        "scripts/package.sh have it.");
  }

  void directory(const DirectoryFacts& at) {
    const std::string where =
        cat(at.path, at.file_system.empty() ? "" : cat(" (", at.file_system, ")"));
    if (!at.failed.empty()) {
      // An error of this program brings its own remedy, below its first line.
      const size_t end = at.failed.find("\n  ");
      return add(Grade::fault, "run_dir", cat(where, ": ", at.failed.substr(0, end)),
                 end == std::string::npos
                     ? "Choose a folder on a file system that this user may write to."
                     : at.failed.substr(end + 3));
    }
    if (at.free_bytes < kGiB)
      add(Grade::fault, "run_dir", cat(where, ": ", human_bytes(at.free_bytes), " are free"),
          "A checkpoint takes 12 to 16 bytes a parameter; tptrain plan says how much.");
    else
      add(Grade::fine, "run_dir", cat(where, ": ", human_bytes(at.free_bytes), " are free"));
    shared(at);
    if (!at.no_locks.empty())
      add(Grade::warning, "locks", cat("files cannot be locked there (", at.no_locks, ")"),
          "A second run in the same run_dir is then noticed only at the next save: mount with "
          "flock.");
    if (at.file_system == "tmpfs")
      add(Grade::warning, "run_dir", "is in memory, and gone with the machine",
          "Choose a folder on a disk for what is to be kept.");
    constexpr double kSlow = 50;
    if (at.write_mib_per_s < kSlow)
      add(Grade::warning, "writing", cat(std::llround(at.write_mib_per_s), " MiB/s with fsync"),
          "Saves will take their time: a faster file system, or a larger checkpoint.save_steps.");
    else
      add(Grade::fine, "writing", cat(std::llround(at.write_mib_per_s), " MiB/s with fsync"));
  }

  // Only a run over several hosts needs it, and the doctor sees one: no complaint.
  void shared(const DirectoryFacts& at) {
    if (at.of_all_hosts.value_or(false))
      return add(Grade::fine, "shared",
                 cat(at.file_system, ", which the hosts of a cluster share"));
    if (at.of_all_hosts)
      return add(Grade::fine, "shared", cat(at.file_system, ", of this host alone"),
                 "A run over several hosts needs a run_dir that all of them see: NFS, Lustre ...");
    add(Grade::fine, "shared",
        cat("not known of ",
            at.file_system.empty() ? std::string("this file system") : at.file_system),
        "A run over several hosts tries at its start whether all of them see its run_dir.");
  }

  const Facts& facts_;
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> findings(const Facts& facts) { return Examination(facts).findings(); }

}  // namespace tptrain::doctor
