// tptrain launch: a run that is started again after what a restart mends, and after nothing else.
#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

using std::chrono::seconds;

/// Two ranks, which start in half the time of four.
std::vector<std::string> launch(const Job& job, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {
      TPTRAIN_BINARY,        "launch", "--mpirun",          TPTRAIN_MPIRUN, "--config",
      job.config().string(), "--set",  "parallel.dp_size=1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<nlohmann::json> attempts(const Job& job) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text(job.run_dir() / "attempts.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

void make_long(Job& job, int steps) {
  job.edit("max_steps: 8", cat("max_steps: ", steps));
  job.edit("save_steps: 3", "save_steps: 10");
  job.edit("every_steps: 4", "every_steps: 0");
}

std::vector<std::string> metrics_of_undisturbed(int steps) {
  Job job;
  make_long(job, steps);
  const ProcessResult result = job.run(2, {"--set", "parallel.dp_size=1"});
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return metric_lines(job.run_dir());
}

/// A launch whose mpirun is a shell script.
ProcessResult launch_by(const Job& job, const std::string& script, const std::string& max_restarts,
                        const std::vector<std::string>& more = {}) {
  const fs::path mpirun = job.directory() / "mpirun.sh";
  write_text(mpirun, "#!/bin/sh\n" + script);
  fs::permissions(mpirun, fs::perms::owner_all);
  fs::create_directories(job.run_dir());
  std::vector<std::string> words = {
      TPTRAIN_BINARY,   "launch",     "--mpirun", mpirun.string(),
      "--max-restarts", max_restarts, "--config", job.config().string()};
  words.insert(words.end(), more.begin(), more.end());
  return run_process(words, job.directory());
}

}  // namespace

TEST_CASE("a rank that is killed costs the steps since the last checkpoint, and nobody's time",
          "[e2e]") {
  const auto start_and_kill = [](Job& job, int steps) {
    make_long(job, steps);
    Process process(launch(job, {"-n", "2"}), job.directory());
    REQUIRE(wait_for(process, checkpoint_at(job.run_dir(), 10)));
    const int victim = ranks_with(job.config().string())[1];
    if (victim > 0) kill(victim, SIGKILL);
    const ProcessResult result = process.wait();
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return attempts(job);
  };
  // On a machine on which it was done before it could be killed it is made longer.
  int steps = 150;
  auto job = std::make_unique<Job>();
  std::vector<nlohmann::json> lines = start_and_kill(*job, steps);
  while (lines.size() == 1) {
    steps *= 4;
    REQUIRE(steps < 100'000);
    job = std::make_unique<Job>();
    lines = start_and_kill(*job, steps);
  }
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["exit_code"] == 137);
  CHECK(lines[0]["then"] == "restarts");
  CHECK(lines[0]["checkpoint_step"].get<int>() >= 10);
  CHECK(lines[1]["from_step"] == lines[0]["checkpoint_step"]);
  CHECK(lines[1]["then"] == "done");
  CHECK(lines[1]["began"].get<double>() - lines[0]["ended"].get<double>() <
        static_cast<double>(within(seconds(10)).count()));
  CHECK(metric_lines(job->run_dir()) == metrics_of_undisturbed(steps));
  CHECK(all_gone(job->config().string()));
}

TEST_CASE("what a restart does not mend ends a launch at once", "[e2e]") {
  Job job;
  SECTION("the run file") {
    const ProcessResult result = run_process(launch(job, {"-n", "3"}), job.directory());
    INFO(result.output);
    CHECK(result.exit_code == 2);
    CHECK(result.output.find("start 1 of at most 4") != std::string::npos);
    CHECK(result.output.find("start 2") == std::string::npos);
  }
  SECTION("the data") {
    job.edit("text/train.txt", "text/missing.txt");
    const ProcessResult result = run_process(launch(job), job.directory());
    INFO(result.output);
    CHECK(result.exit_code == 3);
    CHECK(result.output.find("start 2") == std::string::npos);
  }
  SECTION("mpirun that is not there") {
    const ProcessResult result =
        run_process({TPTRAIN_BINARY, "launch", "--mpirun", "no-such-mpirun", "-n", "4", "--config",
                     job.config().string()},
                    job.directory());
    INFO(result.output);
    CHECK(result.exit_code == 2);
    CHECK(result.output.find("no-such-mpirun: cannot be started") != std::string::npos);
  }
}

TEST_CASE("a signal to a launch stops the run with its state saved", "[e2e]") {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) {
    Job job;
    job.edit("max_steps: 8", "max_steps: 100000");
    Process process(launch(job), job.directory());
    REQUIRE(wait_for_step(process, job.run_dir(), 4));
    process.signal(number);
    const ProcessResult result = process.wait();
    INFO(result.output);
    CHECK(result.exit_code == 75);
    REQUIRE(attempts(job).size() == 1);
    CHECK(attempts(job)[0]["then"] == "stopped");
    CHECK(all_gone(job.config().string()));
  }
}

TEST_CASE("the second Ctrl-C ends a launch and its job, whatever the job is at", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 100000");
  Process process(launch(job), job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 4));
  const int stopped = ranks_with(job.config().string())[1];
  REQUIRE(stopped > 0);
  kill(stopped, SIGSTOP);  // nobody ends a step any more, so that the first one alone ends nothing
  // Two that come at once may be one to the kernel.
  for (int pressed = 0; pressed < 100 && !process.has_ended(); ++pressed) {
    process.signal(SIGINT);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  CHECK(process.wait().exit_code == 128 + SIGINT);
  CHECK(all_gone(job.config().string()));
}

TEST_CASE("a launch that is killed takes its job with it", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 100000");
  Process process(launch(job), job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 4));
  process.signal(SIGKILL);
  CHECK(process.wait().exit_code == 137);
  CHECK(all_gone(job.config().string()));
}

TEST_CASE("an mpirun that stays when its ranks are gone is ended", "[e2e]") {
  const Job job;
  // The rank is there for a moment only, as one that dies in MPI_Init; launch looks every 50 ms.
  const ProcessResult result =
      launch_by(job, "OMPI_COMM_WORLD_RANK=0 sleep 1 &\nexec sleep 1000\n", "0");
  INFO(result.output);
  CHECK(result.exit_code == 6);
  CHECK(result.output.find("its ranks ended, mpirun did not") != std::string::npos);
}

TEST_CASE("a host that does not answer when a job has ended is named", "[e2e]") {
  const Job job;
  const fs::path link = job.directory() / "link", agent = job.directory() / "agent.sh";
  write_text(link, "");
  write_text(agent, cat("#!/bin/sh\n[ $1 = a ] || [ -e ", link.string(), " ]\n"));
  fs::permissions(agent, fs::perms::owner_all);
  const ProcessResult result =
      launch_by(job, cat("rm ", link.string(), "\nexit 205\n"), "0",
                {"-n", "4", "--hosts", "a:2,b:2", "--agent", agent.string()});
  INFO(result.output);
  CHECK(result.exit_code == 205);
  REQUIRE(attempts(job).size() == 1);
  CHECK(attempts(job)[0]["why"] ==
        "mpirun ended with 205: a host or a rank was lost; no answer comes from host b");
}

TEST_CASE("a job that dies each time is given up after the last restart", "[e2e]") {
  const Job job;
  const ProcessResult result = launch_by(job, "kill -9 $$\n", "1");
  INFO(result.output);
  CHECK(result.exit_code == 137);
  REQUIRE(attempts(job).size() == 2);
  CHECK(attempts(job)[1]["then"] == "gave up after the last restart");
}

}  // namespace tptrain::testing
