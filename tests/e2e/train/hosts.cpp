// Ranks whose hosts differ, and tasks that are no ranks, are refused before they train. Two folders
// stand for two hosts.
#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

/// One rank in each of two folders, dp 2, one run_dir.
ProcessResult run_in_two_folders(const Job& job, const std::vector<std::string>& extra_of_second) {
  std::vector<std::string> argv = {TPTRAIN_MPIRUN, "--oversubscribe"};
  for (const char* folder : {"a", "b"}) {
    if (std::string(folder) == "b") argv.push_back(":");
    for (const std::string& part :
         {std::string("-n"), std::string("1"), std::string("-wdir"),
          (job.directory() / folder).string(), std::string(TPTRAIN_BINARY), std::string("--config"),
          job.config().string(), std::string("--set"), std::string("parallel.tp_size=1"),
          std::string("--set"), "run_dir=" + job.run_dir().string(), std::string("--set"),
          "data.train=[" + (job.directory() / "text/train.txt").string() + "]",
          std::string("--set"),
          "data.eval=[" + (job.directory() / "text/eval.txt").string() + "]"}) {
      argv.push_back(part);
    }
  }
  argv.insert(argv.end(), extra_of_second.begin(), extra_of_second.end());
  return run_process(argv, job.directory());
}

void check_refused(const ProcessResult& result, const std::vector<std::string>& parts) {
  INFO(result.output);
  CHECK(result.exit_code == 2);
  for (const std::string& part : parts) {
    INFO("expected in the message: " << part);
    CHECK(result.output.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("two hosts with other copies of a model are refused", "[e2e]") {
  Job job;
  REQUIRE(job.run(1, {"--set", "parallel.tp_size=1", "--set", "parallel.dp_size=1", "--set",
                      "run_dir=first", "--set", "train.max_steps=2"})
              .exit_code == 0);
  const fs::path model = job.directory() / "a/model";
  fs::create_directories(model.parent_path());
  REQUIRE(job.tool({"export", "--checkpoint", "first", "--out", model.string()}).exit_code == 0);
  fs::create_directories(job.directory() / "b");
  fs::copy(model, job.directory() / "b/model", fs::copy_options::recursive);
  const std::string config = read_text(job.config());
  const size_t begin = config.find("  architecture:");
  job.edit(config.substr(begin, config.find('\n', begin) - begin), "  path: model");

  SECTION("the same copies train") {
    const ProcessResult result = run_in_two_folders(job, {});
    INFO(result.output);
    CHECK(result.exit_code == 0);
    CHECK(result.output.find(", host ") != std::string::npos);  // of the mesh picture
  }
  SECTION("other weights of the same shape") {
    const fs::path weights = job.directory() / "b/model/model.safetensors";
    std::string bytes = read_text(weights);
    for (size_t i = bytes.size() / 2; i < bytes.size(); i += 512) bytes[i] ^= 1;
    write_text(weights, bytes);
    check_refused(run_in_two_folders(job, {}),
                  {"the weights of model differs: rank 1 on ", "model.safetensors", "samples"});
  }
  SECTION("another config.json") {
    const fs::path path = job.directory() / "b/model/config.json";
    std::string text = read_text(path);
    const size_t at = text.find("\"rms_norm_eps\": ");
    REQUIRE(at != std::string::npos);
    text.insert(text.find_first_of(",\n", at), "1");
    write_text(path, text);
    check_refused(run_in_two_folders(job, {}),
                  {"the model's shape (config.json) differs: rank 1 on ", "\"rms_norm_eps\": "});
  }
  SECTION("other settings on the command line") {
    check_refused(run_in_two_folders(job, {"--set", "optimizer.learning_rate=1e-5"}),
                  {"the configuration differs: rank 1 on ", "learning_rate: 1e-5"});
  }
}

TEST_CASE("a task that a launcher started without MPI is refused, once", "[e2e]") {
  const Job job;
  const auto start = [&](const std::vector<std::string>& environment) {
    std::vector<std::string> argv = {"env"};
    argv.insert(argv.end(), environment.begin(), environment.end());
    argv.insert(argv.end(), {TPTRAIN_BINARY, "--config", "run.yaml", "--set", "parallel.tp_size=1",
                             "--set", "parallel.dp_size=1", "--set", "train.max_steps=1"});
    return run_process(argv, job.directory());
  };
  check_refused(start({"SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=0"}),
                {"config error: the launcher (Slurm) has 4 tasks", "srun --mpi=pmix"});
  const ProcessResult other = start({"SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=1"});
  CHECK(other.exit_code == 2);
  CHECK(other.output.empty());
  check_refused(start({"WORLD_SIZE=2", "RANK=0", "LOCAL_RANK=0"}),
                {"config error: the launcher (torchrun) has 2 tasks", "mpirun -n 2 tptrain"});
  // As mpirun of another MPI than the program's starts its ranks.
  check_refused(start({"PMI_SIZE=2", "PMI_RANK=0"}),
                {"config error: the launcher (mpirun of MPICH or Intel MPI) has 2 ranks",
                 "first on the PATH"});
  CHECK_FALSE(fs::exists(job.run_dir()));
  // One task is as good as a start by hand.
  CHECK(start({"SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0", "WORLD_SIZE=1"})
            .exit_code == 0);
}

}  // namespace tptrain::testing
