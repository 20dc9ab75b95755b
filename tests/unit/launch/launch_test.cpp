// What a launch decides: on how many ranks and which hosts, by which command, and what an exit code
// means.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "launch/attempts.h"
#include "launch/hosts.h"
#include "launch/layout.h"
#include "launch/mpirun.h"
#include "launch/outcome.h"
#include "launch/supervisor.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using namespace tptrain::launch;
using Strings = std::vector<std::string>;

std::string refusal_of(const std::string& hosts, int64_t ranks) {
  try {
    parse_hosts(hosts, ranks);
  } catch (const ConfigError& error) {
    return error.what();
  }
  FAIL("accepted: " << hosts);
  return "";
}

bool has_words(const Strings& words, const Strings& part) {
  return std::search(words.begin(), words.end(), part.begin(), part.end()) != words.end();
}

/// supervise() of a job of tp 2 x dp 2 that crashes in its first start, on a host that has four
/// GPUs then and `left` after it.
struct Supervised {
  int exit_code = 0;
  Strings said;      // of the launch
  Strings commands;  // what mpirun was called with
};

Supervised supervise_with_gpus(int64_t left, int64_t least_ranks) {
  namespace fs = std::filesystem;
  const TempDir folder;
  const fs::path wrapper = folder.path() / "mpirun.sh";
  const fs::path calls = folder.path() / "calls";
  std::ofstream(wrapper) << "#!/bin/sh\nprintf '%s\\n' \"$*\" >> " << calls.string()
                         << "\n[ $(wc -l < " << calls.string() << ") != 1 ] || kill -9 $$\n";
  fs::permissions(wrapper, fs::perms::owner_all);
  Supervised supervised;
  int64_t asked = 0;
  supervised.exit_code = supervise(
      {.ranks = 4,
       .least_ranks = least_ranks,
       .wrapper = wrapper.string(),
       .program = {"tptrain", "--config", "run.yaml"},
       .layout = {.tp_size = 2, .dp_size = 2, .micro_batch_size = 1, .global_batch_size = 4},
       .run_dir = folder.path()},
      {.machine = {.cores = 4},
       .newest_step = [] { return std::optional<int64_t>(20); },
       .gpus_here = [&] { return std::optional<int64_t>(++asked == 1 ? 4 : left); },
       .say = [&](const std::string& line) { supervised.said.push_back(line); }});
  std::ifstream lines(calls);
  for (std::string line; std::getline(lines, line);) supervised.commands.push_back(line);
  return supervised;
}

}  // namespace

TEST_CASE("a run goes on with the GPUs that are left, where the user allows it") {
  const auto with_fewer = supervise_with_gpus(/*left=*/3, /*least_ranks=*/2);
  CHECK(with_fewer.exit_code == 0);
  REQUIRE(with_fewer.commands.size() == 2);
  CHECK(with_fewer.commands[0].find("-n 4 ") == 0);
  CHECK(with_fewer.commands[0].find("dp_size") == std::string::npos);
  // A whole tp group: two of the three.
  CHECK(with_fewer.commands[1].find("-n 2 ") == 0);
  CHECK(has(with_fewer.commands[1], "tptrain --config run.yaml --set parallel.dp_size=1"));
  CHECK(has_words(with_fewer.said, {"this host has 3 GPUs: goes on with 2 of 4 ranks"}));

  const auto too_few = supervise_with_gpus(/*left=*/1, /*least_ranks=*/2);
  CHECK(too_few.exit_code == 6);
  CHECK(too_few.commands.size() == 1);
  CHECK(has(too_few.said.back(), "gives up: too few GPUs are left"));

  // Without leave the program itself says what is wrong.
  const auto not_allowed = supervise_with_gpus(/*left=*/3, /*least_ranks=*/4);
  REQUIRE(not_allowed.commands.size() == 2);
  CHECK(not_allowed.commands[1] == not_allowed.commands[0]);
}

TEST_CASE("hosts are named with their ranks, or share them equally") {
  CHECK(parse_hosts("a:4,b:2", 6) == std::vector<Host>{{"a", 4}, {"b", 2}});
  CHECK(parse_hosts("a,b", 8) == std::vector<Host>{{"a", 4}, {"b", 4}});
  CHECK(text_of({{"a", 4}, {"b", 2}}) == "a:4,b:2");
  CHECK(refusal_of("a,b", 3).find("3 ranks are not divided by 2 hosts") != std::string::npos);
  CHECK(refusal_of("a:2,b", 4).find("some have none") != std::string::npos);
  CHECK(refusal_of("a:x", 4).find("\"x\" is no number of ranks") != std::string::npos);
  CHECK(refusal_of("a:0", 4).find("\"0\" is no number of ranks") != std::string::npos);
  CHECK(refusal_of("a:2,a:2", 4).find("stands twice") != std::string::npos);
  CHECK(refusal_of(":2", 2).find("names no host") != std::string::npos);
  CHECK(refusal_of("a:2,b:1", 4).find("take 3 ranks together") != std::string::npos);
}

TEST_CASE("a tp group stays on one host where a host has room for it") {
  const std::vector<Host> hosts = {{"a", 3}, {"b", 4}};
  CHECK(whole_groups_on(hosts, 2) == 6);
  CHECK(share_out(hosts, 6, 2) == std::vector<Host>{{"a", 2}, {"b", 4}});
  CHECK(share_out(hosts, 2, 2) == std::vector<Host>{{"a", 2}});
  CHECK(share_out(hosts, 7, 7) == std::vector<Host>{{"a", 3}, {"b", 4}});
}

TEST_CASE("a run goes on with fewer ranks as its layout and global batch allow") {
  const Layout layout{.tp_size = 2, .dp_size = 4, .micro_batch_size = 2, .global_batch_size = 24};
  CHECK(ranks_for(layout, 8, 2, 8)->count == 8);
  CHECK(ranks_for(layout, 8, 2, 8)->sets.empty());
  // dp 3: 24 / (2 * 3) micro-batches.
  CHECK(ranks_for(layout, 8, 2, 7)->count == 6);
  CHECK(ranks_for(layout, 8, 2, 7)->sets == Strings{"parallel.dp_size=3"});
  CHECK_FALSE(ranks_for(layout, 8, 8, 7).has_value());
  CHECK_FALSE(ranks_for(layout, 8, 2, 1).has_value());
  // Accumulation keeps the global batch where the run file says it by that: 2 * 4 * 3 = 24.
  const Layout accumulating{.tp_size = 2, .micro_batch_size = 2, .grad_accum_steps = 3};
  CHECK(ranks_for(accumulating, 8, 2, 7)->sets == Strings{"train.grad_accum_steps=4"});
  // Neither is said: 2 * 4 sequences, which three groups of 2 cannot share and two can.
  const Layout plain{.tp_size = 2, .micro_batch_size = 2};
  CHECK(ranks_for(plain, 8, 2, 7)->count == 4);
  CHECK(ranks_for(plain, 8, 2, 7)->sets == Strings{"train.grad_accum_steps=2"});
}

TEST_CASE("mpirun gets the options that are right for the machine") {
  const MpirunOptions here{.ranks = 4, .program = {"tptrain", "--config", "run.yaml"}};
  const Strings own = mpirun_command(here, {.cores = 8}).words;
  CHECK(own.front() == "mpirun");
  CHECK(has_words(own, {"-n", "4"}));
  CHECK(has_words(own, {"--bind-to", "none"}));
  CHECK(has_words(own, {"tptrain", "--config", "run.yaml"}));
  CHECK_FALSE(has_words(own, {"--allow-run-as-root"}));
  CHECK_FALSE(has_words(own, {"mpi_yield_when_idle"}));
  CHECK(mpirun_command(here, {.cores = 8}).environment.empty());

  const CommandLine container =
      mpirun_command(here, {.is_root = true, .cores = 2, .reads_other_processes = false});
  CHECK(has_words(container.words, {"--allow-run-as-root"}));
  CHECK(has_words(container.words, {"--oversubscribe"}));
  CHECK(has_words(container.words, {"--mca", "mpi_yield_when_idle", "1"}));
  CHECK(has_words(container.words, {"--mca", "btl_vader_single_copy_mechanism", "none"}));
  CHECK(container.environment.size() == 2);

  MpirunOptions over_hosts = here;
  over_hosts.hosts = {{"a", 2}, {"b", 2}};
  over_hosts.agent = "my-agent";
  over_hosts.forwarded = {"NCCL_DEBUG"};
  const Strings words = mpirun_command(over_hosts, {.cores = 8}).words;
  CHECK(has_words(words, {"--host", "a:2,b:2"}));
  CHECK(has_words(words, {"--mca", "plm_rsh_agent", "my-agent"}));
  CHECK(has_words(words, {"-x", "NCCL_DEBUG"}));
  CHECK(has_words(words, {"--mca", "oob_tcp_keepalive_time", "6"}));
  CHECK(this_machine().cores >= 1);
}

TEST_CASE("exit codes say whether a restart can help") {
  CHECK(outcome_of(0, false, false).meaning == Meaning::done);
  CHECK(outcome_of(75, false, false).meaning == Meaning::stopped);
  for (const int code : {2, 3, 4, 5}) {
    CHECK(outcome_of(code, false, false).meaning == Meaning::final);
    CHECK(outcome_of(code, false, true).exit_code == code);
  }
  for (const int code : {1, 6, 134, 137, 139, 205}) {
    CHECK(outcome_of(code, false, false).meaning == Meaning::restart);
    CHECK(outcome_of(code, false, true).meaning == Meaning::stopped);
    CHECK(outcome_of(code, false, true).exit_code == code);
  }
  CHECK(outcome_of(6, true, false).meaning == Meaning::restart);
  CHECK(outcome_of(137, false, false).why == "a rank was killed by SIGKILL");
  // mpirun that a SIGUSR1 of ours met before it listened: nothing had begun.
  CHECK(outcome_of(138, false, true).exit_code == 75);
}

TEST_CASE("an attempt is one line of JSON") {
  const std::string line = json_line({.number = 2,
                                      .began = 1.5,
                                      .ended = 4,
                                      .ranks = 4,
                                      .hosts = {{"a", 4}},
                                      .exit_code = 137,
                                      .why = "killed",
                                      .then = "restarts",
                                      .from_step = 3,
                                      .step = 6});
  REQUIRE(line.back() == '\n');
  const auto json = nlohmann::json::parse(line);
  CHECK(json["attempt"] == 2);
  CHECK(json["hosts"] == "a:4");
  CHECK(json["from_step"] == 3);
  CHECK(json["checkpoint_step"] == 6);
}

TEST_CASE("an attempt that ended before run_dir was there is told with the next") {
  const TempDir directory;
  const std::filesystem::path run_dir = directory / "run";
  AttemptLog log(run_dir);
  CHECK(log.add({.number = 1}).empty());
  CHECK(!std::filesystem::exists(run_dir));
  std::filesystem::create_directory(run_dir);
  CHECK(log.add({.number = 2}).empty());
  CHECK(log.add({.number = 3}).empty());
  std::ifstream lines(run_dir / "attempts.jsonl");
  int number = 0;
  for (std::string line; std::getline(lines, line);)
    CHECK(nlohmann::json::parse(line)["attempt"] == ++number);
  CHECK(number == 3);
  // A disk that takes no more: said, and no reason to end.
  std::filesystem::remove(run_dir / "attempts.jsonl");
  std::filesystem::create_symlink("/dev/full", run_dir / "attempts.jsonl");
  CHECK(log.add({.number = 4}).find("attempts.jsonl") != std::string::npos);
}

}  // namespace tptrain::testing
