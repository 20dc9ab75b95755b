// The main job through the binary: it trains, repeats itself bit for bit, and goes on after an
// interruption as if there had been none.
#include <signal.h>

#include <memory>
#include <regex>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {

TEST_CASE("a run trains, evaluates, commits and says where everything lies", "[e2e]") {
  const Job job;
  const ProcessResult result = job.run();
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK(result.output.find("dp 1") != std::string::npos);  // the mesh picture
  CHECK(result.output.find("step 8/8  loss ") != std::string::npos);
  CHECK(result.output.find("eval_loss ") != std::string::npos);
  CHECK(result.output.find("checkpoint: ") != std::string::npos);
  CHECK(metric_lines(job.run_dir()).size() == 8);
  CHECK(fs::exists(job.run_dir() / "resolved_config.yaml"));
  const std::string log = read_text(job.run_dir() / "log.txt");
  CHECK(std::regex_search(log, std::regex("^[0-9: -]+ tptrain [0-9.]+ \\(CPU.*\\), commit .+\n"
                                          "[0-9: -]+ started [0-9-]+ [0-9:]+ UTC by: .*tptrain "
                                          "--config run.yaml\n")));
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK((line.size() <= 80 || line.find(" by: ") != std::string::npos));
  }
  CHECK(shards_of(checkpoint_at(job.run_dir(), 8)).size() == 4);

  const ProcessResult verify = job.tool({"verify", "run"});
  INFO(verify.output);
  CHECK(verify.exit_code == 0);
  const ProcessResult inspect = job.tool({"inspect", "run/checkpoints/step-00000008"});
  INFO(inspect.output);
  CHECK(inspect.exit_code == 0);
  CHECK(inspect.output.find("model.embed_tokens.weight") != std::string::npos);

  const ProcessResult again = job.run();
  INFO(again.output);
  CHECK(again.exit_code == 0);
  CHECK(again.output.find("nothing to train") != std::string::npos);

  // Any tp size can generate from it, with the same text.
  const ProcessResult alone = job.tool(
      {"generate", "--checkpoint", "run", "--prompt", "Sentence", "--max-new-tokens", "12"});
  const ProcessResult two = run_process(
      job.command(
          2, {"generate", "--checkpoint", "run", "--prompt", "Sentence", "--max-new-tokens", "12"}),
      job.directory());
  INFO(alone.output << "\n--\n" << two.output);
  CHECK(alone.exit_code == 0);
  CHECK(alone.output.find("Sentence") != std::string::npos);
  CHECK(alone.standard_output == two.standard_output);
}

TEST_CASE("the same run twice gives the same fields and the same shards", "[e2e]") {
  const Job job;
  REQUIRE(job.run().exit_code == 0);
  REQUIRE(job.run(4, {"--set", "run_dir=other"}).exit_code == 0);
  CHECK(metric_lines(job.run_dir()) == metric_lines(job.directory() / "other"));
  const auto shards = shards_of(checkpoint_at(job.run_dir(), 8));
  CHECK(shards.size() == 4);
  CHECK(shards == shards_of(checkpoint_at(job.directory() / "other", 8)));
}

TEST_CASE("killed at some step and started again, a run ends as if it had not been", "[e2e]") {
  const auto start_and_kill = [](Job& job, int64_t steps) {
    job.edit("max_steps: 8", cat("max_steps: ", steps));
    job.edit("save_steps: 3", "save_steps: 7");
    const std::string config =
        job.config().string();  // absolute: it tells this run's processes from all others
    Process process(job.command(4, {"--config", config}), job.directory());
    REQUIRE(wait_for(process, checkpoint_at(job.run_dir(), 14)));
    for (const int pid : processes_with(config))
      kill(pid, SIGKILL);  // mpirun and the ranks: nobody gets to say good-bye
    process.wait();
    REQUIRE(all_gone(config));
    return !fs::exists(checkpoint_at(job.run_dir(), steps));
  };
  // On a machine on which it was done before it could be killed it is made longer.
  int64_t steps = 300;
  auto killed = std::make_unique<Job>();
  while (!start_and_kill(*killed, steps)) {
    steps *= 4;
    REQUIRE(steps < 100'000);
    killed = std::make_unique<Job>();
  }
  const Job& job = *killed;
  REQUIRE(job.run(4, {"--set", "run_dir=whole"}).exit_code == 0);
  const ProcessResult resumed = job.run();
  INFO(resumed.output);
  REQUIRE(resumed.exit_code == 0);
  CHECK(resumed.output.find("resume: ") != std::string::npos);
  CHECK(metric_lines(job.run_dir()).size() == static_cast<size_t>(steps));
  CHECK(metric_lines(job.run_dir()) == metric_lines(job.directory() / "whole"));
  CHECK(shards_of(checkpoint_at(job.run_dir(), steps)) ==
        shards_of(checkpoint_at(job.directory() / "whole", steps)));
}

TEST_CASE("asked to stop, a run saves its state and exits with 75; it resumes on another layout",
          "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 1000000");
  job.edit("save_steps: 3", "save_steps: 0");
  {
    Process process(job.command(4, {"--config", "run.yaml"}), job.directory());
    REQUIRE(wait_for_step(process, job.run_dir(), 3));
    process.signal(SIGUSR1);  // mpirun passes it on to the ranks
    const ProcessResult stopped = process.wait();
    INFO(stopped.output);
    CHECK(stopped.exit_code == 75);
    CHECK(stopped.output.find("stopped on request (") != std::string::npos);
  }
  const size_t done = metric_lines(job.run_dir()).size();
  REQUIRE(done > 0);
  REQUIRE(done < 1000000);
  const ProcessResult resumed = job.run(
      2, {"--set", "parallel.tp_size=1", "--set", "train.max_steps=" + std::to_string(done + 2)});
  INFO(resumed.output);
  CHECK(resumed.exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == done + 2);
}

}  // namespace tptrain::testing
