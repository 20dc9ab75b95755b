// What the doctor makes of facts: a sound host has no complaint, and each planted fault is found,
// with what to do and nothing else complained of. And a real folder is tried.
#include "doctor/findings.h"

#include <unistd.h>

#include <algorithm>
#include <functional>

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::doctor {
namespace {

using testing::has;
using testing::TempDir;

constexpr int64_t kGiB = int64_t{1} << 30;

Facts sound_host() {
  Facts facts;
  facts.gpus = {.cuda_build = true,
                .architectures = {80, 90, 100, 120},
                .driver_cuda = 13000,
                .runtime_cuda = 13000,
                .driver = "580.65.06",
                .nccl = "2.28.9",
                .nccl_built = "2.28.9",
                .cudnn = "9.19.0",
                .cudnn_built = "9.19.0"};
  for (int i = 0; i < 2; ++i)
    facts.gpus.gpus.push_back({.name = "NVIDIA H200",
                               .capability = 90,
                               .memory_bytes = 140 * kGiB,
                               .mapped_peers = 1,
                               .nvlinks = 18});
  facts.gpu_devices = true;
  facts.queues = "32";  // as main sets it
  facts.mpi_library = "Open MPI v4.1.4, package: Debian OpenMPI";
  facts.mpirun = "mpirun (Open MPI) 4.1.4";
  facts.open_files = 1048576;
  facts.shared_memory_bytes = 8 * kGiB;
  facts.memory_bytes = 256 * kGiB;
  facts.available_memory_bytes = 250 * kGiB;
  facts.cores = 32;
  facts.reads_parquet = true;
  facts.directory = DirectoryFacts{.path = "runs/a",
                                   .file_system = "lustre",
                                   .of_all_hosts = true,
                                   .free_bytes = 1000 * kGiB,
                                   .write_mib_per_s = 900};
  return facts;
}

std::vector<Finding> complaints(const Facts& facts) {
  std::vector<Finding> found;
  for (const Finding& finding : findings(facts)) {
    if (finding.grade != Grade::fine) found.push_back(finding);
  }
  return found;
}

TEST_CASE("a sound host has no complaint", "[doctor]") {
  CHECK(complaints(sound_host()).empty());
  CHECK(findings(sound_host()).size() >= 10);
  Facts cpu = sound_host();
  cpu.gpus = {};
  cpu.gpu_devices = false;
  cpu.reads_parquet = false;
  CHECK(complaints(cpu).empty());
  const auto data = findings(cpu);
  CHECK(std::any_of(data.begin(), data.end(), [](const Finding& finding) {
    return finding.what == "data" && has(finding.remedy, "setup.sh --parquet");
  }));
  Facts mpich = sound_host();
  mpich.mpi_library = "MPICH Version:\t4.0.2";
  mpich.mpirun = "HYDRA build details:";
  CHECK(complaints(mpich).empty());
  Facts intel = sound_host();
  intel.mpi_library = "Intel(R) MPI Library 2021.11 for Linux* OS";
  intel.mpirun = "Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005";
  CHECK(complaints(intel).empty());
}

TEST_CASE("each planted fault is found, and says what to do", "[doctor]") {
  struct Planted {
    const char* what;
    Grade grade;
    const char* found;
    const char* remedy;
    std::function<void(Facts&)> plant;
  };
  const std::vector<Planted> all = {
      {"driver", Grade::fault, "serves CUDA up to 12.8; 13.0 is needed", "580",
       [](Facts& f) { f.gpus.driver_cuda = 12080; }},
      {"driver", Grade::fault, "none is loaded", "--nv",
       [](Facts& f) {
         f.gpus.driver_cuda = 0;
         f.gpus.gpus.clear();
       }},
      {"GPU 1", Grade::fault, "Tesla V100, capability 7.0", "CUDA_VISIBLE_DEVICES",
       [](Facts& f) {
         f.gpus.gpus[0].name = f.gpus.gpus[1].name = "Tesla V100";
         f.gpus.gpus[1].capability = 70;
       }},
      {"GPU 0", Grade::fault, "NVIDIA H200, capability 9.0", "-DCMAKE_CUDA_ARCHITECTURES=90",
       [](Facts& f) { f.gpus.gpus[0].runs_this_program = false; }},
      {"GPUs", Grade::fault, "the driver shows none", "nvidia-smi",
       [](Facts& f) { f.gpus.gpus.clear(); }},
      {"GPUs", Grade::warning, "of different kinds", "slowest",
       [](Facts& f) { f.gpus.gpus[1].name = "NVIDIA H100"; }},
      {"GPUs", Grade::warning, "built without CUDA", "--preset cuda",
       [](Facts& f) { f.gpus = {}; }},
      {"links", Grade::warning, "not all GPUs map", "topo -p2p",
       [](Facts& f) { f.gpus.gpus[1].mapped_peers = 0; }},
      {"links", Grade::warning, "no active NVLink", "dp to tp",
       [](Facts& f) { f.gpus.gpus[0].nvlinks = 0; }},
      {"cuDNN", Grade::warning, "9.1.0 is loaded, older than 9.19.0", "LD_LIBRARY_PATH",
       [](Facts& f) { f.gpus.cudnn = "9.1.0"; }},
      {"NCCL", Grade::warning, "2.20.5 is loaded", "LD_LIBRARY_PATH",
       [](Facts& f) { f.gpus.nccl = "2.20.5"; }},
      {"CUDA_DEVICE_MAX_CONNECTIONS", Grade::warning, "is set to 1", "unset",
       [](Facts& f) { f.queues = "1"; }},
      {"mpirun", Grade::fault, "not on the PATH", "apt-get", [](Facts& f) { f.mpirun = ""; }},
      {"mpirun", Grade::fault, "HYDRA", "each be alone",
       [](Facts& f) { f.mpirun = "HYDRA build details: 4.1"; }},
      {"mpirun", Grade::fault, "Intel(R)", "each be alone",
       [](Facts& f) { f.mpirun = "Intel(R) MPI Library for Linux* OS, Version 4.1"; }},
      {"mpirun", Grade::fault, "5.0.3", "first on the PATH",
       [](Facts& f) { f.mpirun = "mpirun (Open MPI) 5.0.3"; }},
      {"locked memory", Grade::warning, "64.00 KiB", "ulimit -l",
       [](Facts& f) { f.locked_memory_bytes = 65536; }},
      {"open files", Grade::warning, "256", "ulimit -n", [](Facts& f) { f.open_files = 256; }},
      {"shared memory (/dev/shm)", Grade::fault, "64.00 MiB", "--ipc=host",
       [](Facts& f) { f.shared_memory_bytes = kGiB / 16; }},
      {"cores", Grade::warning, "1, memory", "taskset", [](Facts& f) { f.cores = 1; }},
      {"run_dir", Grade::fault, "Permission denied", "may write to",
       [](Facts& f) { f.directory->failed = "open failed (Permission denied)"; }},
      {"run_dir", Grade::fault, "run/f.tmp: write failed: no space", "Free space",
       [](Facts& f) {
         f.directory->failed = "data error: run/f.tmp: write failed: no space\n  Free space.";
       }},
      {"run_dir", Grade::fault, "1.00 MiB are free", "tptrain plan",
       [](Facts& f) { f.directory->free_bytes = 1 << 20; }},
      {"run_dir", Grade::warning, "in memory", "on a disk",
       [](Facts& f) { f.directory->file_system = "tmpfs"; }},
      {"locks", Grade::warning, "Function not implemented", "mount with flock",
       [](Facts& f) { f.directory->no_locks = "Function not implemented"; }},
      {"writing", Grade::warning, "3 MiB/s", "save_steps",
       [](Facts& f) { f.directory->write_mib_per_s = 3.2; }},
  };
  for (const Planted& planted : all) {
    Facts facts = sound_host();
    planted.plant(facts);
    const std::vector<Finding> found = complaints(facts);
    INFO(planted.what << ": " << planted.found);
    REQUIRE(found.size() == 1);
    CHECK(found[0].what == planted.what);
    CHECK(found[0].grade == planted.grade);
    CHECK(has(found[0].found, planted.found));
    CHECK(has(found[0].remedy, planted.remedy));
    CHECK(found[0].found.find('\n') ==
          std::string::npos);  // a finding is a line, its remedy another
  }
}

TEST_CASE("whether other hosts see run_dir is said, and is no complaint", "[doctor]") {
  struct On {
    const char* file_system;
    std::optional<bool> of_all_hosts;
    const char* found;
    const char* remedy;
  };
  for (const On& on : {On{"lustre", true, "lustre, which the hosts of a cluster share", ""},
                       On{"nfs", true, "nfs, which the hosts of a cluster share", ""},
                       On{"ext4", false, "ext4, of this host alone", "Lustre"},
                       On{"fuse", std::nullopt, "not known of fuse", "at its start"},
                       On{"", std::nullopt, "not known of this file system", "at its start"}}) {
    Facts facts = sound_host();
    facts.directory->file_system = on.file_system;
    facts.directory->of_all_hosts = on.of_all_hosts;
    INFO(on.file_system);
    CHECK(complaints(facts).empty());
    const std::vector<Finding> all = findings(facts);
    const auto shared = std::find_if(all.begin(), all.end(),
                                     [](const Finding& one) { return one.what == "shared"; });
    REQUIRE(shared != all.end());
    CHECK(has(shared->found, on.found));
    CHECK(has(shared->remedy, on.remedy));
  }
  Facts nowhere = sound_host();
  nowhere.directory.reset();
  const std::vector<Finding> all = findings(nowhere);
  CHECK(std::none_of(all.begin(), all.end(),
                     [](const Finding& one) { return one.what == "shared"; }));
}

TEST_CASE("a folder is tried as a save would use it, and left as it was", "[doctor]") {
  const TempDir directory;
  const DirectoryFacts facts = try_directory((directory / "not/yet/there").string());
  CHECK(facts.failed.empty());
  CHECK(facts.free_bytes > 0);
  CHECK((facts.file_system.empty() || facts.file_system == "fuse") == !facts.of_all_hosts);
  CHECK(facts.write_mib_per_s > 0);
  CHECK(std::filesystem::is_empty(directory.path()));
  directory.put("file", "");
  CHECK(has(try_directory((directory / "file").string()).failed, "this is no folder"));
  CHECK_FALSE(try_directory("/proc/here").failed.empty());  // nobody may write there
}

TEST_CASE("this host can be examined", "[doctor]") {
  const Facts facts = examine("");
  CHECK(has(facts.mpi_library, "MPI"));
  CHECK(facts.mpi_library.find('\0') == std::string::npos);
  CHECK(facts.cores >= 1);
  CHECK(facts.memory_bytes > 0);
  CHECK(facts.available_memory_bytes > 0);
  CHECK(facts.available_memory_bytes <= facts.memory_bytes);
  CHECK_FALSE(facts.directory.has_value());
  CHECK_FALSE(findings(facts).empty());
}

}  // namespace
}  // namespace tptrain::doctor
