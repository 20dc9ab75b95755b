// A restart loses nothing: what checkpoint.resume says is about the first start of a run, other
// runs' checkpoints and metrics stay as they are, and settings do not change without a word.
#include <signal.h>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

// One rank, so that a test of many starts takes seconds.
ProcessResult start(const Job& job, std::vector<std::string> sets) {
  sets.insert(sets.end(), {"parallel.tp_size=1", "parallel.dp_size=1", "checkpoint.keep=2"});
  std::vector<std::string> arguments;
  for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
  return job.run(1, arguments);
}

bool says(const ProcessResult& result, const std::string& text) {
  return result.output.find(text) != std::string::npos;
}

std::vector<std::string> checkpoints_of(const fs::path& run_dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run_dir / "checkpoints"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("never in a run_dir that another run has used is refused, and nothing is touched",
          "[e2e]") {
  const Job job;
  REQUIRE(start(job, {"train.max_steps=5", "checkpoint.save_steps=2"}).exit_code == 0);
  const Names before = checkpoints_of(job.run_dir());
  const std::string metrics = read_text(job.run_dir() / "metrics.jsonl");
  ProcessResult refused = start(job, {"checkpoint.resume=never", "train.max_steps=4"});
  INFO(refused.output);
  CHECK(refused.exit_code == 2);
  CHECK(says(refused, "checkpoint.resume is never"));
  CHECK(says(refused, "Set run_dir to another directory"));
  CHECK(checkpoints_of(job.run_dir()) == before);
  CHECK(read_text(job.run_dir() / "metrics.jsonl") == metrics);

  fs::remove_all(job.run_dir() / "checkpoints");  // its metrics alone are reason enough
  refused = start(job, {"checkpoint.resume=never", "train.max_steps=4"});
  CHECK(refused.exit_code == 2);
  CHECK(says(refused, "metrics.jsonl"));
  CHECK(read_text(job.run_dir() / "metrics.jsonl") == metrics);
}

TEST_CASE("a run begun with never goes on when the same command comes again", "[e2e]") {
  Job job;
  const std::string never = "checkpoint.resume=never";
  {
    Process process(
        job.command(1, {"--config", "run.yaml", "--set", never, "--set",
                        "parallel={tp_size: 1, dp_size: 1}", "--set", "train.max_steps=1000000",
                        "--set", "checkpoint.save_steps=0", "--set", "scheduler.type=constant"}),
        job.directory());
    REQUIRE(wait_for_step(process, job.run_dir(), 3));
    process.signal(SIGUSR1);
    CHECK(process.wait().exit_code == 75);
  }
  const size_t done = metric_lines(job.run_dir()).size();
  const std::string further = cat("train.max_steps=", done + 2);
  const ProcessResult on = start(job, {never, further, "scheduler.type=constant"});
  INFO(on.output);
  CHECK(on.exit_code == 0);
  CHECK(says(on, "resume: "));
  CHECK_FALSE(says(on, "settings changed"));  // max_steps alone is no news
  CHECK(metric_lines(job.run_dir()).size() == done + 2);

  const ProcessResult other =
      start(job, {never, further, "scheduler.type=constant", "optimizer.learning_rate=1e-4"});
  INFO(other.output);
  CHECK(other.exit_code == 2);
  CHECK(says(other, "optimizer.learning_rate: 0.003 -> 1e-4"));
}

TEST_CASE("a run begun with never and ended before its first checkpoint begins again", "[e2e]") {
  const Job job;
  const Names sets = {"checkpoint.resume=never", "train.max_steps=3"};
  REQUIRE(start(job, sets).exit_code == 0);
  fs::remove_all(job.run_dir() / "checkpoints");  // as if it had been killed before it
  const ProcessResult again = start(job, sets);
  INFO(again.output);
  CHECK(again.exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == 3);
}

TEST_CASE("a path is where the first start begins; later ones go on from what grew from it",
          "[e2e]") {
  const Job job;
  REQUIRE(start(job, {"train.max_steps=2", "run_dir=first"}).exit_code == 0);
  const std::string path = "checkpoint.resume=first/checkpoints/step-00000002";
  REQUIRE(start(job, {path, "train.max_steps=4"}).exit_code == 0);
  ProcessResult on = start(job, {path, "train.max_steps=6"});
  INFO(on.output);
  CHECK(on.exit_code == 0);
  CHECK(says(on, "run/checkpoints/step-00000004, step 4"));
  CHECK(metric_lines(job.run_dir()).size() == 4);  // steps 3 to 6

  fs::remove_all(job.directory() / "first");  // the path is not needed any longer
  on = start(job, {path, "train.max_steps=8"});
  INFO(on.output);
  CHECK(on.exit_code == 0);
  CHECK(says(on, "run/checkpoints/step-00000006, step 6"));
  CHECK(metric_lines(job.run_dir()).size() == 6);
}

TEST_CASE("a branch off an older step leaves the other run's checkpoints and metrics", "[e2e]") {
  const Job job;
  REQUIRE(start(job, {"train.max_steps=6", "checkpoint.save_steps=3"}).exit_code == 0);
  const std::vector<std::string> whole = metric_lines(job.run_dir());
  const Names branch = {"checkpoint.resume=run/checkpoints/step-00000003",
                        "checkpoint.save_steps=1", "optimizer.learning_rate=1e-3"};
  Names to_seven = branch;
  to_seven.push_back("train.max_steps=7");
  ProcessResult result = start(job, to_seven);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  // `keep: 2` of the branch, and both of the run it left.
  CHECK(checkpoints_of(job.run_dir()) ==
        Names{"step-00000003", "step-00000006", "step-00000006.2", "step-00000007"});
  CHECK(metric_lines(job.run_dir()).size() == 7);
  Names kept;
  for (const auto& entry : fs::directory_iterator(job.run_dir())) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("metrics-")) kept.push_back(name);
  }
  REQUIRE(kept.size() == 1);
  fs::create_directory(job.directory() / "kept");
  fs::copy_file(job.run_dir() / kept[0], job.directory() / "kept/metrics.jsonl");
  CHECK(metric_lines(job.directory() / "kept") == whole);

  Names to_eight = branch;
  to_eight.push_back("train.max_steps=8");
  result = start(job, to_eight);  // the same command again: on from the branch, not from step 3
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(says(result, "step-00000007, step 7"));
}

TEST_CASE("run_dir removed while running ends with exit code 4 and the state saved", "[e2e]") {
  const Job job;
  Process process(
      job.command(1, {"--config", "run.yaml", "--set", "parallel={tp_size: 1, dp_size: 1}", "--set",
                      "train.max_steps=1000000", "--set", "checkpoint.save_steps=0"}),
      job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 3));
  fs::remove_all(job.run_dir());
  process.signal(SIGUSR1);
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK(result.exit_code == 4);
  CHECK(says(result, "run_dir was removed while this run used it"));
  CHECK(job.tool({"verify", "run"}).exit_code == 0);
}

TEST_CASE("another length, seed, order or packing is refused, or allowed by name", "[e2e]") {
  const Job job;
  REQUIRE(start(job, {"train.max_steps=2"}).exit_code == 0);
  const std::vector<std::pair<std::string, std::string>> changes = {{"train.seq_length", "16"},
                                                                    {"train.seed", "7"},
                                                                    {"data.shuffle", "false"},
                                                                    {"data.packing", "best_fit"}};
  for (const auto& [key, value] : changes) {
    const ProcessResult refused = start(job, {key + "=" + value, "train.max_steps=3"});
    INFO(refused.output);
    CHECK(refused.exit_code == 4);
    CHECK(says(refused, key + " is " + value + ", the checkpoint was trained with"));
    CHECK(says(refused, "checkpoint.allow_changes: [" + key + "]"));
  }
  const ProcessResult allowed =
      start(job, {"train.seed=7", "checkpoint.allow_changes=[train.seed]", "train.max_steps=3"});
  INFO(allowed.output);
  CHECK(allowed.exit_code == 0);
  CHECK(says(allowed, "settings changed: train.seed: 42 -> 7"));
}

TEST_CASE("a disk without room ends a run that is told to stop, and not one that goes on",
          "[e2e]") {
  // A file where checkpoints/ must be: no save can succeed.
  for (const std::string on_failure : {"stop", "go_on"}) {
    // On a machine on which the first save came before that file it comes later.
    for (int64_t first_save = 400;; first_save *= 4) {
      REQUIRE(first_save < 100'000);
      const Job job;
      Process process(
          job.command(
              1, {"--config", "run.yaml", "--set",
                  cat("checkpoint={save_steps: ", first_save, ", on_failure: ", on_failure, "}"),
                  "--set", cat("train.max_steps=", first_save * 5 / 2), "--set",
                  "parallel={tp_size: 1, dp_size: 1}", "--set", "eval.every_steps=0"}),
          job.directory());
      REQUIRE(wait_for_step(process, job.run_dir(), 3));
      fs::remove_all(job.run_dir() / "checkpoints");
      write_text(job.run_dir() / "checkpoints", "in the way");
      const bool in_time =
          static_cast<int64_t>(metric_lines(job.run_dir()).size()) < first_save - 10;
      const ProcessResult result = process.wait();
      if (!in_time) continue;
      INFO(result.output);
      CHECK(result.exit_code == 4);
      CHECK(says(result, "is tried again"));
      const auto steps = static_cast<int64_t>(metric_lines(job.run_dir()).size());
      CHECK(steps == (on_failure == "stop" ? first_save : first_save * 5 / 2));
      break;
    }
  }
}

TEST_CASE("changed settings are one line of rank 0; of another model the keys that differ stand",
          "[e2e]") {
  const Job job;
  REQUIRE(job.run(2, {"--set", "parallel.dp_size=1", "--set", "train.max_steps=2"}).exit_code == 0);
  const ProcessResult layout =
      job.run(2, {"--set", "parallel={tp_size: 1, dp_size: 2}", "--set", "train.max_steps=3"});
  INFO(layout.output);
  CHECK(layout.exit_code == 0);
  CHECK_FALSE(says(layout, "settings changed"));
  const ProcessResult changed =
      job.run(2, {"--set", "parallel.dp_size=1", "--set", "train.max_steps=4", "--set",
                  "optimizer.learning_rate=1e-2", "--set", "scheduler.warmup_steps=1"});
  INFO(changed.output);
  CHECK(changed.exit_code == 0);
  const std::string line =
      "settings changed: optimizer.learning_rate: 0.003 -> 0.01; scheduler.warmup_steps: 2 -> 1";
  CHECK(changed.output.find(line) == changed.output.rfind(line));
  CHECK(says(changed, line));

  const ProcessResult model =
      job.run(2, {"--set", "parallel.dp_size=1", "--set", "model.architecture.hidden_size=64"});
  INFO(model.output);
  CHECK(model.exit_code == 4);
  CHECK(says(model, "hidden_size: 32 -> 64"));
  CHECK_FALSE(says(model, "intermediate_size"));
  CHECK_FALSE(says(model, "resume: never"));
}

}  // namespace tptrain::testing
