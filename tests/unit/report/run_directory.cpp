// A run directory as a report sees it: starts, saves and warnings of the log, settings and their
// changes, checkpoints, where the time went; and which runs a path means.
#include <cmath>

#include "base/error.h"
#include "report/find_runs.h"
#include "report/run_record.h"
#include "report/settings_table.h"
#include "report/summary.h"
#include "report/time_share.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::report {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;

constexpr const char* kLog =
    "11-29 19:15:37 tptrain 0.1.0 (CPU), commit 526d41c3ef9f\n"
    "11-29 19:15:37 started 2026-11-29 19:15:37 UTC by: tptrain --config run.yaml\n"
    "11-29 19:15:37 hosts: a (2 ranks)\n"
    "11-29 19:15:37 device mesh: dp 2 x tp 1, 2 ranks on cpu, host a\n"
    "          tp 0\n"
    "11-29 19:15:38 step 1/6  loss 5.6  norm 1.5  11,551 tokens/s  ETA 7s\n"
    "11-29 19:15:39 checkpoint: r/checkpoints/step-00000002 committed in 0.25 s\n"
    "11-29 19:15:39 WARNING: disk is <nearly> full\n"
    "11-29 19:15:39 stopped on request (SIGTERM) at step 2 of 6\n"
    "11-29 19:20:00 tptrain 0.1.0 (CPU), commit 526d41c3ef9f\n"
    "11-29 19:20:00 started 2026-11-29 19:20:00 UTC by: tptrain --config run.yaml\n"
    "11-29 19:20:00 resume: r/checkpoints/step-00000002, step 2, 256 tokens seen\n"
    "11-29 19:20:05 checkpoint: r/checkpoints/step-00000004 committed in 0.75 s\n"
    "11-29 19:20:06 done: step 4 of 4\n";

// 19:15:37 is 1795979737.
constexpr const char* kMetrics =
    "{\"step\":1,\"loss\":5,\"time\":1795979738,\"step_time_s\":0.5,\"tokens_per_second\":100}\n"
    "{\"step\":2,\"loss\":4,\"time\":1795979738.5,\"step_time_s\":0.5,\"tokens_per_second\":200}\n"
    "{\"step\":3,\"loss\":3,\"time\":1795980002,\"step_time_s\":0.5,\"tokens_per_second\":300}\n"
    "{\"step\":4,\"loss\":2,\"time\":1795980004,\"step_time_s\":0.5,\"tokens_per_second\":400}\n"
    "{\"step\":2,\"eval_loss\":4.5,\"time\":1795979739}\n"
    "{\"step\":4,\"eval_loss\":2.5,\"time\":1795980004}\n";

struct Run {
  TempDir directory;
  RunRecord record;
  Run() {
    directory.put("log.txt", kLog);
    directory.put("metrics.jsonl", kMetrics);
    directory.put("resolved_config.yaml",
                  "run_dir: r\ntrain: {max_steps: 4}\noptimizer: {betas: [0.9, 0.95]}\n");
    directory.put("resolved_config.0.yaml",
                  "train: {max_steps: 6}\noptimizer: {betas: [0.9, 0.95]}\n");
    directory.put("resolved_config.2.yaml",
                  "train: {max_steps: 4}\noptimizer: {betas: [0.9, 0.95]}\n");
    directory.put("checkpoints/step-00000004/manifest.json", "{}");
    directory.put("checkpoints/step-00000004/shard-00000-of-00001.safetensors", "12345678");
    directory.put("checkpoints/.tmp-step-00000006-1/manifest.json", "{}");
    directory.put("checkpoints/step-00000002/shard", "no manifest: it is going");
    record = read_run(directory.path());
  }
};

TEST_CASE("the log tells of starts, saves and warnings", "[report]") {
  const Run run;
  const LogFacts& log = run.record.log;
  REQUIRE(log.starts.size() == 2);
  CHECK(log.starts[0].command == "tptrain --config run.yaml");
  CHECK(log.starts[0].hosts == "a (2 ranks)");
  CHECK(log.starts[0].end == "stopped on request (SIGTERM) at step 2 of 6");
  CHECK_FALSE(log.starts[0].done);
  CHECK(log.starts[1].from_step == 2);
  CHECK(log.starts[1].done);
  REQUIRE(log.saves.size() == 2);
  CHECK(log.saves[1].step == 4);
  CHECK(log.saves[1].seconds == 0.75);
  CHECK(log.warnings == 1);
  CHECK(log.last_warnings.at(0) == "11-29 19:15:39  WARNING: disk is <nearly> full");
}

TEST_CASE("the log's last line tells of work that takes its time", "[report]") {
  const auto work_of = [](const std::string& last) {
    return read_log("11-29 19:15:37 started 2026-11-29 19:15:37 UTC by: tptrain\n11-29 19:15:38 " +
                    last)
        .work;
  };
  CHECK(work_of("evaluating: 3 of 12 (25 %), 0.15/s, ETA 1m 2s\n") == "evaluating (25 %)");
  CHECK(work_of("hashing: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, ETA 6s\n") ==
        "hashing (25 %)");
  CHECK(work_of("waiting for the checkpoint of step 8: 12s so far\n") ==
        "waiting for the checkpoint of step 8");
  CHECK(work_of(
            "evaluating: 3 of 12 (25 %), 0.15/s, ETA 1m 2s\n11-29 19:16:38 step 8  eval_loss 3.1\n")
            .empty());
  CHECK(work_of("data: 3 of 12 documents (a few)\n").empty());
  CHECK(work_of("step 8/8  loss 3.1\n").empty());
}

TEST_CASE("settings, their changes and the checkpoints that are there", "[report]") {
  const Run run;
  CHECK(run.record.setting("optimizer.betas") == "[0.9, 0.95]");
  CHECK(run.record.max_steps() == 4);
  const std::vector<SettingChange> changes = changes_of(run.record);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].step == 2);
  CHECK(changes[0].key == "train.max_steps");
  CHECK(changes[0].before == "6");
  CHECK(changes[0].after == "4");
  REQUIRE(run.record.checkpoints.size() == 1);
  CHECK(run.record.checkpoints[0].name == "step-00000004");
  CHECK(run.record.checkpoints[0].bytes == 8);
  CHECK(run.record.problems.empty());
}

TEST_CASE("the summary of a run", "[report]") {
  const Run run;
  const Summary s = summary_of(run.record);
  CHECK(s.state == "done");
  CHECK(s.step == "4/4");
  CHECK(s.loss == "2.0000");
  CHECK(s.best_eval == "2.5000 (step 4)");
  CHECK(s.tokens_per_second == "300");
  CHECK(s.last_checkpoint == "step-00000004");
  CHECK(seconds_left(run.record) == 0);
}

TEST_CASE("the time of a run is shared out, the pause between two starts too", "[report]") {
  const Run run;
  const TimeShare share = time_share(run.record);
  CHECK(share.starting_s == Approx(1 + 2));  // 37 to 38, 20:00 to 20:02
  CHECK(share.stopped_s == Approx(261.5));   // 15:38.5 to 20:00
  CHECK(share.steps_s == Approx(0.5 + 0.5));
  CHECK(share.saves_s == Approx(1.0));  // of the 1.5 s between steps
  CHECK(share.other_s == Approx(0.5));
  CHECK(share.total_s() == Approx(1795980004.0 - 1795979737.0));
}

TEST_CASE("steps are shared out by their phases, where a run says them", "[report]") {
  const TempDir directory;
  directory.put("metrics.jsonl",
                "{\"step\":1,\"loss\":5,\"time\":100,\"step_time_s\":2,\"phases\":{\"data\":0.5,"
                "\"forward_backward\":1,\"other\":0.5}}\n"
                "{\"step\":2,\"loss\":5,\"time\":102,\"step_time_s\":2,\"phases\":{\"data\":0.5,"
                "\"forward_backward\":1,\"other\":0.5}}\n"
                "{\"step\":4,\"loss\":5,\"time\":112,\"step_time_s\":4,\"phases\":{\"data\":1,"
                "\"forward_backward\":2,\"other\":1,\"new_one\":0}}\n");
  const TimeShare share = time_share(read_run(directory.path()));
  CHECK(share.steps_s == Approx(2 + 8));  // step 3, which is not logged, took as long as step 4
  REQUIRE(share.phases.size() == 4);
  CHECK(share.phases[0].first == "data");
  CHECK(share.phases[0].second == Approx(0.5 + 2));
  CHECK(share.phases[1].first == "forward_backward");
  CHECK(share.phases[1].second == Approx(1 + 4));
  CHECK(share.phases[2].second == Approx(0.5 + 2));
  CHECK(share.phases[3].first == "new_one");
}

TEST_CASE("what each source of a mixture has given", "[report]") {
  const TempDir directory;
  directory.put("metrics.jsonl",
                "{\"step\":1,\"loss\":5,\"time\":100,\"sources\":{\"a/b\":{\"sequences\":3,"
                "\"epoch\":0.5},\"c\":{\"sequences\":1,\"epoch\":2.25}}}\n");
  const std::vector<SourceUse> sources = sources_of(read_run(directory.path()));
  REQUIRE(sources.size() == 2);
  CHECK(sources[0].name == "a/b");
  CHECK(sources[0].sequences == 3);
  CHECK(sources[1].name == "c");
  CHECK(sources[1].epoch == 2.25);
}

TEST_CASE("what cannot be read is said and the rest is shown", "[report]") {
  const TempDir directory;
  directory.put("metrics.jsonl", "nothing\n{\"step\":1,\"loss\":1}\n");
  directory.put("resolved_config.yaml", "a: [\n");
  directory.put("log.txt", std::string("\xff\0\n", 3));
  const RunRecord run = read_run(directory.path());
  REQUIRE(run.problems.size() == 2);
  CHECK(has(run.problems[0], "1 lines are no records"));
  CHECK(has(run.problems[1], "resolved_config.yaml:"));
  CHECK(run.metrics.steps.size() == 1);
}

TEST_CASE("settings that call a part of themselves again and again are refused", "[report]") {
  const TempDir directory;
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string b = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + b + ", " + b + ", " + b +
            ", " + b + ", " + b + ", " + b + ", " + b + ", " + b + "]\n";
  }
  directory.put("resolved_config.yaml", text);
  const RunRecord run = read_run(directory.path());
  REQUIRE(run.problems.size() == 1);
  CHECK(has(run.problems[0], "its values take more than 16 MiB"));
}

TEST_CASE("a path means a run, or the runs below it", "[report]") {
  const TempDir directory;
  directory.put("sweep/lr=1/metrics.jsonl", "");
  directory.put("sweep/lr=2/log.txt", "");
  directory.put("sweep/table.tsv", "");
  directory.put("other/lr=1/resolved_config.yaml", "");
  directory.put("empty/file", "");
  const auto one = find_runs({(directory / "sweep/lr=1/").string()});
  REQUIRE(one.size() == 1);
  CHECK(one[0].name == "lr=1");
  const auto all = find_runs({directory.path().string(), (directory / "sweep").string()});
  REQUIRE(all.size() == 3);  // each once
  CHECK(all[0].name == "other/lr=1");
  CHECK(all[1].name == "sweep/lr=1");
  CHECK(all[2].name == "sweep/lr=2");
  CHECK(has(message_of<DataError>([&] { find_runs({(directory / "missing").string()}); }),
            "there is no such folder"));
  CHECK(has(message_of<DataError>([&] { find_runs({(directory / "empty").string()}); }),
            "no run is in this folder"));
}

}  // namespace
}  // namespace tptrain::report
