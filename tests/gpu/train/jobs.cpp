// Whole training jobs on GPUs, as a user starts them: what they say at the start, and how they end
// where a rank hangs or dies and where the memory does not suffice.
#include <signal.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "e2e/train/training_job.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using std::chrono::seconds;

void check_says(const ProcessResult& result, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    INFO("expected: " << part);
    CHECK(result.output.find(part) != std::string::npos);
  }
}

/// How two GPUs share the work: where pushes between them go, and whether a graph holds them.
struct Way {
  std::string layout = "tp_size: 2, dp_size: 1";
  std::string graphs = "auto";
};
const std::vector<Way> kWays = {{"tp_size: 2, dp_size: 1", "on"},
                                {"tp_size: 2, dp_size: 1", "off"},
                                {"tp_size: 1, dp_size: 2", "on"},
                                {"tp_size: 1, dp_size: 2", "off"}};

// The run file of every test here: bf16 on two GPUs.
void put_on_gpus(Job& job, const Way& way = {}, int hang_timeout_s = 60) {
  job.edit("device: cpu", cat("device: cuda\n  dtype: bf16\n  hang_timeout_s: ", hang_timeout_s,
                              "\n  cuda_graphs: ", way.graphs));
  job.edit("num_attention_heads: 4", "head_dim: 64, num_attention_heads: 4");
  job.edit("tp_size: 2, dp_size: 2", way.layout);
}

/// Of jobs in which ranks hang or die: longer than a start takes beside those of all others.
constexpr int kHangTimeout = 20;

// A job on two GPUs that would train for hours, and its ranks once it is under way.
struct Running {
  Way way;
  Job job;
  std::string marker = (job.directory() / "run.yaml").string();
  Process process;
  std::vector<int> ranks;

  explicit Running(Way of = {}) : way(std::move(of)), process(start()) {
    REQUIRE(wait_for(process, checkpoint_at(job.run_dir(), 50)));
    for (const int pid : processes_with(marker)) {
      if (pid != process.pid()) ranks.push_back(pid);
    }
    REQUIRE(ranks.size() == 2);
  }
  Process start() {
    put_on_gpus(job, way, kHangTimeout);
    job.edit("max_steps: 8", "max_steps: 1000000");
    job.edit("save_steps: 3", "save_steps: 50");
    return Process(job.command(2, {"--config", marker}), job.directory());
  }
};

/// One job a way, all under way at once.
std::vector<std::unique_ptr<Running>> running_in_every_way() {
  std::vector<std::unique_ptr<Running>> jobs;
  for (const Way& way : kWays) jobs.push_back(std::make_unique<Running>(way));
  return jobs;
}

}  // namespace

TEST_CASE("a run says at its start which GPUs, libraries, links and attention it has", "[gpu]") {
  Job job;
  put_on_gpus(job);
  const ProcessResult result = job.run(2);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  check_says(result,
             {"GPUs: 2 x NVIDIA ", " on 1 host; driver ", ", cuDNN 9.", ", cuBLAS ", ", NCCL 2.",
              "links: the GPUs of a host ", "tensors travel by: NCCL", "attention: cuDNN"});
}

namespace {

struct DeterministicRun {
  std::string layout;
  std::string mask;
  Job job;
  Process process;

  DeterministicRun(std::string of_layout, std::string of_mask)
      : layout(std::move(of_layout)), mask(std::move(of_mask)), process(start()) {}
  Process start() {
    put_on_gpus(job, {.layout = layout});
    job.edit("device: cuda", "deterministic: true\n  device: cuda");
    job.edit("data:", "data:\n  document_mask: " + mask);
    // Longer than it takes to find the faster way of steps, which changes no bit.
    job.edit("max_steps: 8", "max_steps: 30");
    return Process(job.command(2, {"--config", "run.yaml"}), job.directory());
  }
};

}  // namespace

// All at once: a start takes longer than its steps.
TEST_CASE("with train.deterministic the same run file gives the same bits twice", "[gpu]") {
  std::vector<std::unique_ptr<DeterministicRun>> runs;
  for (const char* layout : {"tp_size: 2, dp_size: 1", "tp_size: 1, dp_size: 2"}) {
    for (const char* mask : {"false", "false", "true", "true"})
      runs.push_back(std::make_unique<DeterministicRun>(layout, mask));
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    const DeterministicRun& run = *runs[i];
    INFO(run.layout << ", document_mask: " << run.mask);
    const ProcessResult result = runs[i]->process.wait();
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    CHECK(metric_lines(run.job.run_dir()).size() >= 30);
    if (i % 2 == 0) continue;
    const Job& same = runs[i - 1]->job;
    CHECK(metric_lines(run.job.run_dir()) == metric_lines(same.run_dir()));
    CHECK(shards_of(checkpoint_at(run.job.run_dir(), 30)) ==
          shards_of(checkpoint_at(same.run_dir(), 30)));
  }
}

TEST_CASE("a rank that hangs ends the job with code 6, whatever is under way", "[gpu]") {
  const auto jobs = running_in_every_way();
  for (const auto& run : jobs) kill(run->ranks[1], SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& run : jobs) {
    const ProcessResult result = run->process.wait();
    INFO(run->way.layout << ", graphs " << run->way.graphs << "\n" << result.output);
    CHECK(result.exit_code == 6);
    CHECK(std::chrono::steady_clock::now() - begin < seconds(kHangTimeout) + within(seconds(5)));
    check_says(result, {"] communication error: no progress for ", ": step ", "last collective"});
    CHECK(all_gone(run->marker));
  }
}

TEST_CASE("a rank that is killed ends the job at once, whatever is under way", "[gpu]") {
  const auto jobs = running_in_every_way();
  for (const auto& run : jobs) {
    kill(run->ranks[1], SIGKILL);
    const auto begin = std::chrono::steady_clock::now();
    const ProcessResult result = run->process.wait();
    INFO(run->way.layout << ", graphs " << run->way.graphs << "\n" << result.output);
    CHECK(result.exit_code != 0);
    CHECK(std::chrono::steady_clock::now() - begin < within(seconds(5)));
    CHECK(all_gone(run->marker));
  }
}

TEST_CASE("a rank that never enters a collective ends the job with code 6", "[gpu]") {
  const ProcessResult result =
      run_process({TPTRAIN_MPIRUN, "--oversubscribe", "-n", "2", TPTRAIN_NEVER_COMES_BINARY});
  INFO(result.output);
  CHECK(result.exit_code == 6);
  CHECK_FALSE(result.timed_out);
  check_says(result,
             {"[rank 0] communication error: no progress for 3.", "waiting for the second sum",
              "last collective \"dp: all_reduce of 4.2 MB, number "});
  CHECK(all_gone(TPTRAIN_NEVER_COMES_BINARY));
}

TEST_CASE("a rank that fails with pushes under way ends the job with its error", "[gpu]") {
  const ProcessResult result = run_process(
      {TPTRAIN_MPIRUN, "--oversubscribe", "-n", "2", TPTRAIN_NEVER_COMES_BINARY, "fails"});
  INFO(result.output);
  CHECK(result.exit_code == 2);  // 6: it hung, and the watchdog ended it
  check_says(result, {"[rank 1] config error: an error of one rank alone"});
  CHECK(all_gone(TPTRAIN_NEVER_COMES_BINARY));
}

TEST_CASE("a model that no GPU holds is refused with its forecast, code 2", "[gpu]") {
  Job job;
  put_on_gpus(job);
  job.edit("hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2",
           "hidden_size: 16384, intermediate_size: 65536, num_hidden_layers: 40");
  job.edit("tp_size: 2", "tp_size: 1");
  const ProcessResult result = job.run(1);
  INFO(result.output);
  CHECK(result.exit_code == 2);
  check_says(result, {"config error: building the model: out of memory on NVIDIA ",
                      "were asked for", "Forecast of a rank: parameters ", "gradients ", "moments ",
                      "activations at their peak "});
}

TEST_CASE("activations that do not fit: the message names a micro-batch that does", "[gpu]") {
  Job job;
  put_on_gpus(job);
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "Sentence " + std::to_string(i) + " goes on.\n";
  write_text(job.directory() / "text/train.txt", text);
  write_text(job.directory() / "text/eval.txt", text);
  job.edit("hidden_size: 32, intermediate_size: 64", "hidden_size: 8192, intermediate_size: 28672");
  job.edit("head_dim: 64, num_attention_heads: 4, num_key_value_heads: 2",
           "num_attention_heads: 64, num_key_value_heads: 8");
  job.edit("tp_size: 2", "tp_size: 1");
  job.edit("seq_length: 32", "seq_length: 2048");
  job.edit("micro_batch_size: 1", "micro_batch_size: 128");
  job.edit("global_batch_size: 4", "global_batch_size: 128");
  job.edit("eval: {every_steps: 4}", "eval: {every_steps: 0}");
  const ProcessResult result = job.run(1);
  INFO(result.output);
  CHECK(result.exit_code == 2);
  check_says(result, {"config error: step 1, forward and backward: out of memory on NVIDIA ",
                      "    train.micro_batch_size: ", ", fits", "    parallel.recompute: "});
}

}  // namespace tptrain::testing
