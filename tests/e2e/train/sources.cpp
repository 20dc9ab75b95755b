// Several sources, epochs and evaluation sets, through the program: the same training on another
// layout and over a restart, each source's part in metrics.jsonl, and two runs that share their
// token files.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

std::vector<nlohmann::json> lines_of(const fs::path& run_dir, const std::string& key) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(key)) lines.push_back(json);
  }
  return lines;
}

std::map<fs::path, fs::file_time_type> cached(const fs::path& directory) {
  std::map<fs::path, fs::file_time_type> files;
  for (const auto& entry : fs::directory_iterator(directory))
    files[entry.path()] = fs::last_write_time(entry.path());
  return files;
}

class SourcesJob : public Job {
 public:
  SourcesJob() {
    const std::string text = read_text(directory() / "text/train.txt");
    std::string rows;
    for (int i = 0; i < 60; ++i)
      rows += nlohmann::json({{"content", cat("Row ", i, " of many, and nothing else.")}}).dump() +
              "\n";
    write_text(directory() / "text/rows.jsonl", "no row\n" + rows);
    edit("train: [text/train.txt]\n  eval: [text/eval.txt]",
         "train: [{path: text/train.txt, weight: 0.75}, {path: text/rows.jsonl, weight: 0.25, "
         "name: rows, subset: 50}]\n"
         "  eval: {text: [text/eval.txt], rows: [text/rows.jsonl]}\n"
         "  text_key: content\n  max_bad_fraction: 0.02\n  cache_dir: cache");
    edit("eval: {every_steps: 4}", "eval: {every_epochs: 1}");
    edit("save_steps: 3", "save_epochs: 1");
    edit("max_steps: 8", "epochs: 0.25");
  }
  std::string train(int ranks, const std::string& name, std::vector<std::string> settings) {
    std::vector<std::string> arguments = {"--set", "run_dir=" + name};
    for (const std::string& setting : settings) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    const ProcessResult result = run(ranks, arguments);
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return result.output;
  }
};

}  // namespace

TEST_CASE("a mixture trains alike on every layout and over a restart, by epochs", "[e2e]") {
  SourcesJob job;
  const std::string output = job.train(4, "a", {});
  CHECK(output.find("source text/train.txt: ") != std::string::npos);
  CHECK(output.find("source rows: ") != std::string::npos);
  CHECK(output.find("of 61 rows are malformed and left out") != std::string::npos);
  CHECK(output.find("held out as text: ") != std::string::npos);
  CHECK(output.find("text/rows.jsonl (rows) is both trained on and evaluated on") !=
        std::string::npos);
  CHECK(output.find("; 0.25 epochs are ") != std::string::npos);
  const auto whole = lines_of(job.directory() / "a", "loss");
  REQUIRE(whole.size() > 4);
  const auto& last = whole.back();
  const int64_t sequences = static_cast<int64_t>(whole.size()) * 4;
  // A quarter of an epoch, rounded up to a step.
  CHECK(last["epoch"].get<double>() >= 0.25);
  CHECK((static_cast<double>(sequences) - 4) / static_cast<double>(sequences) *
            last["epoch"].get<double>() <
        0.25);
  const int64_t of_rows = last["sources"]["rows"]["sequences"];
  CHECK(std::abs(static_cast<double>(of_rows) - 0.25 * static_cast<double>(sequences)) <= 1);
  CHECK(last["sources"]["text/train.txt"]["sequences"].get<int64_t>() == sequences - of_rows);
  CHECK(last["sources"]["rows"]["epoch"].get<double>() > 0);

  const auto evaluations = lines_of(job.directory() / "a", "eval_loss");
  REQUIRE(evaluations.size() == 2);  // before the first step and at the end
  for (const auto& line : evaluations) {
    const auto& sets = line["eval_sets"];
    REQUIRE(sets.size() == 2);
    const double tokens = line["eval_tokens"];
    CHECK(sets["text"]["tokens"].get<double>() + sets["rows"]["tokens"].get<double>() == tokens);
    const double mean =
        (sets["text"]["loss"].get<double>() * sets["text"]["tokens"].get<double>() +
         sets["rows"]["loss"].get<double>() * sets["rows"]["tokens"].get<double>()) /
        tokens;
    CHECK(mean == Approx(line["eval_loss"].get<double>()).epsilon(1e-9));
  }

  // Another run of the sweep uses what the first has tokenized; it stops, and goes on with one
  // rank.
  const auto tokens = cached(job.directory() / "cache");
  CHECK(tokens.size() == 8);  // a .bin and an .idx of two sources and two sets, and no lock
  job.train(2, "b", {"train.max_steps=3", "parallel.dp_size=1"});
  CHECK(cached(job.directory() / "cache") == tokens);
  job.train(1, "b",
            {"parallel.tp_size=1", "parallel.dp_size=1", cat("train.max_steps=", whole.size())});
  const auto resumed = lines_of(job.directory() / "b", "loss");
  REQUIRE(resumed.size() == whole.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    CHECK(resumed[i]["tokens_seen"] == whole[i]["tokens_seen"]);
    CHECK(resumed[i]["sources"] == whole[i]["sources"]);
  }
  // The learning rates of three steps were those of a shorter run.
  for (size_t i = 0; i < 2; ++i)
    CHECK(resumed[i]["loss"].get<double>() == Approx(whole[i]["loss"].get<double>()).epsilon(1e-5));

  // What a run takes, prepare makes: here it is there. A token file of Megatron-LM trains as well.
  const ProcessResult prepared =
      job.tool({"prepare", "--config", "run.yaml", "--show", "2", "--megatron", "out"});
  INFO(prepared.output);
  CHECK(prepared.exit_code == 0);
  CHECK(cached(job.directory() / "cache") == tokens);
  CHECK(prepared.output.find("train rows: ") != std::string::npos);
  CHECK(prepared.output.find(" documents, there already, cache/train-") != std::string::npos);
  CHECK(prepared.output.find("  S[[entence 0 says that 0 is the square of 0.") !=
        std::string::npos);
  CHECK(fs::exists(job.directory() / "out/eval-rows.idx"));
  const std::string indexed =
      job.train(1, "c",
                {"parallel.tp_size=1", "parallel.dp_size=1", "train.max_steps=2", "data.eval=[]",
                 "data.train=[out/train-*.bin]"});
  CHECK(indexed.find("first step done") != std::string::npos);

  // Other weights are another order of the data.
  const ProcessResult other = job.run(
      1, {"--set", "run_dir=b", "--set", "parallel.tp_size=1", "--set", "parallel.dp_size=1",
          "--set", "train.max_steps=100", "--set",
          "data.train=[{path: text/train.txt, weight: 1}, {path: text/rows.jsonl, weight: 2, "
          "subset: 50}]"});
  CHECK(other.exit_code == 4);
  CHECK(other.output.find("mixes its sources otherwise") != std::string::npos);
}

}  // namespace tptrain::testing
