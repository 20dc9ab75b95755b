// The page by itself: what comes from a run never becomes markup, nothing is fetched, the policy
// names the very style and script that are there. The browser's view of it: tests/e2e/report.
#include "report/page.h"

#include <nlohmann/json.hpp>
#include <regex>

#include "report/html.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::report {
namespace {

using testing::has;

constexpr const char* kHostile =
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\xff";

RunRecord hostile_run() {
  RunRecord run;
  run.name = kHostile;
  run.settings = {{kHostile, kHostile}};
  run.problems = {kHostile};
  run.log.starts.push_back({.program = kHostile,
                            .when = kHostile,
                            .command = kHostile,
                            .hosts = kHostile,
                            .devices = kHostile,
                            .model = kHostile,
                            .data = kHostile,
                            .from_step = 1,
                            .end = kHostile});
  run.log.last_warnings = {kHostile};
  run.metrics.steps.begin_row(1);
  run.metrics.steps.set("loss", 2.5);
  run.metrics.steps.set(kHostile, 1);
  run.metrics.steps.set(std::string("sources/") + kHostile + "/sequences", 1);
  run.metrics.steps.set(std::string("phases/") + kHostile, 1);
  run.metrics.evaluations[kHostile].begin_row(1);
  run.metrics.evaluations[kHostile].set("eval_loss", 3);
  run.metrics.skipped = {{1, kHostile}};
  run.checkpoints = {{.name = kHostile, .step = 1}};
  return run;
}

TEST_CASE("what comes from a run never becomes markup", "[report]") {
  RunRecord other = hostile_run();
  other.name += "2";
  other.settings[0].second += "2";
  const std::string page = report_page({.title = kHostile, .program = kHostile, .made = kHostile},
                                       {hostile_run(), other});
  CHECK_FALSE(has(page, "<img"));
  CHECK_FALSE(has(page, "<script>alert"));
  CHECK_FALSE(has(page, "\xff"));
  size_t scripts = 0;
  for (size_t at = page.find("<script"); at != std::string::npos; at = page.find("<script", at + 1))
    ++scripts;
  CHECK(scripts == 2);  // the numbers, and what draws them
  CHECK(has(page, "&lt;img src=x onerror=alert(2)&gt;&quot;&#39;&amp;"));
}

TEST_CASE("the page asks nothing of the network", "[report]") {
  const std::string page = report_page({.title = "a"}, {hostile_run()});
  const std::regex address(
      "(src|href)=\"(?!#|data:)|url\\((?!#)|@import|fetch\\(|XMLHttpRequest|WebSocket");
  CHECK_FALSE(std::regex_search(page.substr(page.find("<script>")), address));
  CHECK_FALSE(std::regex_search(page.substr(0, page.find("<body>")), address));
  CHECK(has(page, "default-src 'none'"));
}

TEST_CASE("the policy names the style and the script that are there", "[report]") {
  CHECK(content_hash("") ==
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");  // as browsers write it
  const std::string page = report_page({.title = "a"}, {});
  const auto between = [&](const std::string& begin, const std::string& end) {
    const size_t at = page.find(begin) + begin.size();
    return page.substr(at, page.find(end, at) - at);
  };
  CHECK(has(page, "style-src '" + content_hash(between("<style>", "</style>")) + "'"));
  CHECK(has(page, "script-src '" + content_hash(between("<script>", "</script>")) + "'"));
}

TEST_CASE("the numbers are valid JSON, few, and say null for what is none", "[report]") {
  RunRecord run;
  run.name = "a";
  for (int64_t step = 1; step <= 10000; ++step) {
    run.metrics.steps.begin_row(step);
    run.metrics.steps.set("loss", step < 100 ? kNoNumber : 1.0 / static_cast<double>(step));
    run.metrics.steps.set("time", 1e9 + static_cast<double>(step));
  }
  run.metrics.evaluations[""].begin_row(5000);
  run.metrics.evaluations[""].set("eval_loss", 3);
  run.checkpoints = {{.name = "step-00000100", .step = 100}};
  const auto data = nlohmann::json::parse(page_data({run, run}));
  REQUIRE(data["runs"].size() == 2);
  const auto& one = data["runs"][0];
  const auto& loss = one["series"]["loss"];
  CHECK(loss["mean"].size() <= 1500);
  CHECK(loss["mean"].size() == one["x"]["step"].size());
  CHECK(loss["mean"][0].is_null());
  CHECK(loss["low"].back() == 0.0001);
  CHECK(one["x"]["step"].back() == 10000);
  CHECK(one["evaluations"][""]["series"]["eval_loss"]["mean"] == nlohmann::json::parse("[3]"));
  CHECK(one["saves"] == nlohmann::json::parse("[100]"));
}

TEST_CASE("a page of runs that have nothing yet", "[report]") {
  RunRecord run;
  run.name = "a";
  CHECK(has(report_page({.title = "a"}, {run, run}), "no step yet"));
  CHECK(nlohmann::json::parse(page_data({run}))["runs"][0]["x"]["step"].empty());
}

}  // namespace
}  // namespace tptrain::report
