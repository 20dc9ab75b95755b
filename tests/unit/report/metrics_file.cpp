// metrics.jsonl as columns: what a run writes, what a resume takes back, and what is no record.
#include "report/metrics_file.h"

#include <cmath>
#include <fstream>

#include "report/condense.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::report {
namespace {

using testing::TempDir;

TEST_CASE("lines become columns by their names", "[report]") {
  const TempDir directory;
  MetricsFile file(directory.put(
      "metrics.jsonl",
      R"({"step":1,"loss":5.5,"time":100})"
      "\n"
      R"({"step":1,"eval_loss":5.25,"eval_tokens":12})"
      "\n"
      R"({"step":2,"skipped":"nonfinite","lr":0.1})"
      "\n"
      R"({"step":3,"loss":null,"new_key":7,"sources":{"wiki":{"epoch":0.5}},"time":103})"
      "\n"
      R"({"step":3,"eval_loss":4.75,"eval_sets":{"wiki":{"loss":4.5,"tokens":9}},"time":104})"
      "\n"
      R"({"step":1,"save_stall_s":0.25,"save_s":2,"save_bytes":100,"time":105})"
      "\n"));
  CHECK(file.read_more());
  const Metrics& metrics = file.metrics();
  CHECK(metrics.steps.steps() == std::vector<int64_t>{1, 3});
  REQUIRE(metrics.steps.find("loss") != nullptr);
  CHECK(metrics.steps.find("loss")->at(0) == 5.5);
  CHECK(std::isnan(metrics.steps.last("loss")));
  CHECK(std::isnan(metrics.steps.find("new_key")->at(0)));
  CHECK(metrics.steps.last("new_key") == 7);
  CHECK(metrics.steps.find("skipped") == nullptr);
  REQUIRE(metrics.skipped.size() == 1);
  CHECK(metrics.skipped[0].reason == "nonfinite");
  CHECK(metrics.steps.last("sources/wiki/epoch") == 0.5);
  CHECK(metrics.evaluations.at("").find("eval_loss")->at(0) == 5.25);
  CHECK(metrics.evaluations.at("").last("eval_loss") == 4.75);
  CHECK(metrics.evaluations.at("wiki").last("eval_loss") == 4.5);
  CHECK(metrics.evaluations.at("wiki").last("time") == 104);
  CHECK(metrics.saves.steps() == std::vector<int64_t>{1});  // beside the steps that came after it
  CHECK(metrics.saves.last("save_stall_s") == 0.25);
  CHECK(metrics.foreign_lines == 0);
}

TEST_CASE("a file that grows is read on, a torn line when it is whole", "[report]") {
  const TempDir directory;
  const auto path = directory / "metrics.jsonl";
  MetricsFile file(path);
  CHECK_FALSE(file.read_more());  // it is not there yet
  std::ofstream out(path);
  out << R"({"step":1,"loss":3})"
      << "\n"
      << R"({"step":2,"lo)" << std::flush;
  CHECK(file.read_more());
  CHECK(file.metrics().steps.size() == 1);
  out << R"(ss":2.5})"
      << "\n"
      << std::flush;
  CHECK(file.read_more());
  CHECK_FALSE(file.read_more());
  CHECK(file.metrics().steps.last("loss") == 2.5);
  CHECK(file.metrics().foreign_lines == 0);
}

TEST_CASE("a file that a resume replaced is read anew", "[report]") {
  const TempDir directory;
  const auto path =
      directory.put("metrics.jsonl", "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n");
  MetricsFile file(path);
  file.read_more();
  const auto other = directory.put("new", "{\"step\":1,\"loss\":3}\n");
  std::filesystem::rename(other, path);
  CHECK(file.read_more());
  CHECK(file.metrics().steps.steps() == std::vector<int64_t>{1});
}

TEST_CASE("what is no record is counted, whatever it is", "[report]") {
  const TempDir directory;
  std::string text = "no json\n[1]\n{\"loss\":1}\n{\"step\":\"1\"}\n{\"step\":1.5}\n\xff\xfe\n";
  text += std::string(3, '\0') + "\n" + std::string(2000000, 'x') + "\n{\"step\":4,\"loss\":1}\n";
  MetricsFile file(directory.put("metrics.jsonl", text));
  file.read_more();
  CHECK(file.metrics().foreign_lines == 8);
  CHECK(file.metrics().steps.steps() == std::vector<int64_t>{4});
}

TEST_CASE("points of many rows keep their mean, least and most", "[report]") {
  const std::vector<double> values = {1, 3, kNoNumber, 8, kNoNumber, kNoNumber};
  const std::vector<size_t> parts = parts_of(values.size(), 3);
  CHECK(parts == std::vector<size_t>{0, 2, 4, 6});
  const Condensed points = condense(values, parts);
  CHECK(points.mean[0] == 2);
  CHECK(points.low[0] == 1);
  CHECK(points.high[0] == 3);
  CHECK(points.mean[1] == 8);
  CHECK(std::isnan(points.mean[2]));
  CHECK(parts_of(2, 3) == std::vector<size_t>{0, 1, 2});
  CHECK(condense({}, parts_of(0, 3)).mean.empty());
}

}  // namespace
}  // namespace tptrain::report
