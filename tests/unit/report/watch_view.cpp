// The view of `tptrain watch`: fits its terminal, tells a silent run from a running one, draws.
#include "report/watch_view.h"

#include <algorithm>
#include <sstream>

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::report {
namespace {

using testing::has;

RunRecord run_of(const std::string& name, int64_t steps) {
  RunRecord run;
  run.name = name;
  run.settings = {{"train.max_steps", "1000"}};
  for (int64_t step = 1; step <= steps; ++step) {
    run.metrics.steps.begin_row(step);
    run.metrics.steps.set("loss", 5.0 / static_cast<double>(step));
    run.metrics.steps.set("time", 1000.0 + static_cast<double>(step));
    run.metrics.steps.set("step_time_s", 1);
    run.metrics.steps.set("tokens_per_second", 12345);
  }
  return run;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST_CASE("one run: how far, how good, how fast, a plot", "[report]") {
  const RunRecord run = run_of("first", 100);
  const std::string view = watch_view({&run}, {.width = 79, .height = 23, .now = 1102});
  CHECK(has(view, "first  running  step 100/1000  ETA 15m 0s"));
  CHECK(has(view, "loss 0.0500  12,345 tokens/s"));
  CHECK(has(view, "checkpoint: none"));
  CHECK(has(view, "\xe2\xa3"));  // braille
  const std::string ascii =
      watch_view({&run}, {.width = 79, .height = 23, .now = 1102, .unicode = false});
  CHECK(has(ascii, "***"));
  CHECK(std::all_of(ascii.begin(), ascii.end(),
                    [](char c) { return c == '\n' || (c >= ' ' && c < 127); }));
}

TEST_CASE("a run that failed before its first step says with what, and draws nothing", "[report]") {
  RunRecord run = run_of("first", 0);
  CHECK(watch_view({&run}, {.width = 79, .height = 23, .now = 1102}) ==
        "first  no step yet\ncheckpoint: none\n");
  run.log = read_log(
      "11-30 17:40:08 started 2026-11-30 17:40:08 UTC by: tptrain\n"
      "11-30 17:40:09 ERROR: [rank 0] data error: a.txt: it is empty.\n  Name text.\n");
  CHECK(watch_view({&run}, {.width = 79, .height = 23, .now = 1102}) ==
        "first  failed\ncheckpoint: none\n! ERROR: [rank 0] data error: a.txt: it is empty.\n");
}

TEST_CASE("a mixture's sources have a line of their own", "[report]") {
  RunRecord run = run_of("first", 100);
  run.metrics.steps.set("sources/wiki/sequences", 70);
  run.metrics.steps.set("sources/wiki/epoch", 0.525);
  run.metrics.steps.set("sources/chat/sequences", 30);
  run.metrics.steps.set("sources/chat/epoch", 1.25);
  CHECK(has(watch_view({&run}, {.width = 79, .height = 23, .now = 1102}),
            "sources: wiki 70 %, 0.53 epochs; chat 30 %, 1.25 epochs\n"));
}

TEST_CASE("a run whose numbers stop is silent, whose log says so is done", "[report]") {
  RunRecord run = run_of("a", 3);
  CHECK(has(watch_view({&run}, {.now = 1003 + 300}), "silent for 5m 0s"));
  run.log.starts.push_back({.end = "done: step 3 of 3", .done = true});
  CHECK(has(watch_view({&run}, {.now = 1003 + 300}), "done"));
}

TEST_CASE("a run at long work says which, as long as its log goes on", "[report]") {
  RunRecord run = run_of("a", 3);
  run.log.work = "evaluating (25 %)";
  run.log_time = 1003 + 290;
  CHECK(has(watch_view({&run}, {.now = 1003 + 300}), "a  evaluating (25 %)  step 3/1000\n"));
  CHECK(has(watch_view({&run}, {.now = 1003 + 400}), "silent for 6m 40s"));  // killed in it
  run.log.work.clear();
  CHECK(has(watch_view({&run}, {.now = 1003 + 300}), "silent for 5m 0s"));
  // Behind it the first step may take its time again.
  Columns& evaluations = run.metrics.evaluations[""];
  evaluations.begin_row(3);
  evaluations.set("time", 1003 + 280);
  CHECK(has(watch_view({&run}, {.now = 1003 + 300}), "a  running"));
}

TEST_CASE("the last step of a run that logs every few steps is that of its last save", "[report]") {
  RunRecord run = run_of("a", 24);
  run.metrics.saves.begin_row(27);
  CHECK(has(watch_view({&run}, {.now = 1030}), "step 27/1000"));
}

TEST_CASE("a view is never wider or longer than its terminal", "[report]") {
  std::vector<RunRecord> runs;
  for (int i = 0; i < 40; ++i)
    runs.push_back(run_of("a run of a very long name, number " + std::to_string(i), 50));
  runs[1].name =
      "\xe6\xb5\x8b\xe8\xaf\x95\xe6\xb5\x8b\xe8\xaf\x95";  // four characters, eight columns
  runs[2].metrics = {};
  for (const int count : {1, 2, 3, 40}) {
    std::vector<const RunRecord*> shown;
    for (int i = 0; i < count; ++i) shown.push_back(&runs[static_cast<size_t>(i)]);
    for (const int width : {1, 20, 79, 200}) {
      for (const int height : {1, 5, 23, 60}) {
        const ViewOptions options{.width = width, .height = height, .now = 1050, .unicode = false};
        const auto lines = lines_of(watch_view(shown, options));
        INFO(count << " runs, " << width << " x " << height);
        CHECK(lines.size() <= static_cast<size_t>(height));
        for (const std::string& line : lines) CHECK(cut(line, width) == line);
        if (count > height)
          CHECK(has(lines.back(), std::string("and ").substr(0, static_cast<size_t>(width))));
      }
    }
  }
}

TEST_CASE("a plot falls with its values", "[report]") {
  const std::vector<double> falling = {8, 4, 2, 1};
  const auto rows = plot(falling, 4, 4, /*unicode=*/false);
  REQUIRE(rows.size() == 4);
  CHECK(rows[0][0] == '*');
  CHECK(rows[3][3] == '*');
  CHECK(rows[3][0] == ' ');
  CHECK(rows[0][3] == ' ');
  CHECK(plot({}, 3, 1, false)[0] == "   ");
  CHECK(plot(std::vector<double>{2, 2}, 3, 1, false)[0] == "***");
}

}  // namespace
}  // namespace tptrain::report
