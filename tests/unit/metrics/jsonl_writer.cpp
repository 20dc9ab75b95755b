// metrics.jsonl: its keys and their order, doubles bit for bit, and what a resume drops.
#include "metrics/jsonl_writer.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/catch.h"

namespace tptrain::metrics {
namespace {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "tptrain-metrics-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string message_of(const std::filesystem::path& path, int64_t last_step) {
  try {
    JsonlWriter writer(path, last_step);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

TEST_CASE("a step's line has the documented keys in their order", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  JsonlWriter writer(path, 0);
  StepMetrics metrics{.step = 3,
                      .loss = 2.5,
                      .grad_norm = 0.5,
                      .lr = 0.25,
                      .tokens_seen = 96,
                      .epoch = 1.5,
                      .time = 1.7e9,
                      .step_time_s = 0.125,
                      .tokens_per_second = 256,
                      .tokens_per_second_per_rank = 64,
                      .tflops = 2.5,
                      .mfu = 0.5,
                      .peak_memory_bytes = 4096};
  writer.step(metrics);
  // Flushed: it stands in the file while the writer is still open.
  const std::string with_mfu =
      R"({"step":3,"loss":2.5,"grad_norm":0.5,"lr":0.25,"tokens_seen":96,"epoch":1.5,"time":1700000000.0,"step_time_s":0.125,)"
      R"("tokens_per_second":256.0,"tokens_per_second_per_rank":64.0,"tflops":2.5,"mfu":0.5,"peak_memory_bytes":4096})"
      "\n";
  CHECK(text_of(path) == with_mfu);
  metrics.mfu.reset();
  metrics.phases = {0.25, 1.5};
  writer.step(metrics);
  writer.eval({.step = 3, .loss = 0.0, .target_tokens = 1000, .time = 1.7e9});
  writer.skipped({.step = 4, .reason = "nonfinite", .lr = 0.25, .tokens_seen = 96, .time = 1.7e9});
  CHECK(
      text_of(path) ==
      with_mfu +
          R"({"step":3,"loss":2.5,"grad_norm":0.5,"lr":0.25,"tokens_seen":96,"epoch":1.5,"time":1700000000.0,"step_time_s":0.125,)"
          R"("phases":{"data":0.25,"forward_backward":1.5},)"
          R"("tokens_per_second":256.0,"tokens_per_second_per_rank":64.0,"tflops":2.5,"peak_memory_bytes":4096})"
          "\n"
          R"({"step":3,"eval_loss":0.0,"eval_perplexity":1.0,"eval_tokens":1000,"time":1700000000.0})"
          "\n"
          R"({"step":4,"skipped":"nonfinite","lr":0.25,"tokens_seen":96,"epoch":0.0,"time":1700000000.0})"
          "\n");
}

TEST_CASE("doubles read back to the same bits", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  JsonlWriter writer(path, 0);
  // Neighbours of round numbers, a float widened to double, the smallest and largest: where
  // rounding to few digits shows.
  std::vector<double> values = {0.1,
                                1.0 / 3.0,
                                std::nextafter(1.0, 2.0),
                                std::nextafter(8.5, 0.0),
                                static_cast<double>(2.3456789f),
                                5e-324,
                                1.7976931348623157e308,
                                -0.0,
                                1e-5};
  double x = 0.123456789;
  for (int i = 0; i < 1000; ++i) values.push_back(x = std::fmod(x * 997.13 + 0.7, 13.7));
  for (const double value : values)
    writer.step({.step = 1, .loss = value, .grad_norm = value, .lr = value});
  std::ifstream file(path);
  size_t at = 0;
  for (std::string line; std::getline(file, line); ++at) {
    const auto object = nlohmann::json::parse(line);
    CHECK(object.at("loss").get<double>() == values[at]);
    CHECK(std::signbit(object.at("lr").get<double>()) == std::signbit(values[at]));
  }
  CHECK(at == values.size());
}

TEST_CASE("a loss that is no number is null, which JSON can hold", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  JsonlWriter writer(path, 0);
  writer.step({.step = 1, .loss = std::nan(""), .grad_norm = INFINITY});
  const auto object = nlohmann::json::parse(text_of(path));
  CHECK(object.at("loss").is_null());
  CHECK(object.at("grad_norm").is_null());
}

TEST_CASE("an evaluation whose loss was no number is one of the earlier evaluations", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  JsonlWriter(path, 0).eval({.step = 1, .loss = std::nan(""), .target_tokens = 10});
  const JsonlWriter again(path, 1);
  REQUIRE(again.earlier_evaluations().size() == 1);
  CHECK(again.earlier_evaluations()[0].step == 1);
  CHECK(std::isnan(again.earlier_evaluations()[0].loss));
}

TEST_CASE("a resume drops the lines beyond its checkpoint and appends after the rest",
          "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  write(path,
        "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":2,\"eval_loss\":2.5}\n"
        "{\"step\":3,\"loss\":1.0}\n{\"step\":3,\"eval_loss\":1.5}\n");
  JsonlWriter writer(path, 2);
  const std::string kept =
      "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":2,\"eval_loss\":2.5}\n";
  CHECK(text_of(path) == kept);
  writer.eval({.step = 3, .loss = 0.0, .target_tokens = 10});
  CHECK(text_of(path) == kept +
                             "{\"step\":3,\"eval_loss\":0.0,\"eval_perplexity\":1.0,\"eval_"
                             "tokens\":10,\"time\":0.0}\n");
}

TEST_CASE("a torn last line is dropped, a whole one without a line end is kept", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  const std::string first = "{\"step\":1,\"loss\":3.0}\n";
  for (const std::string& torn : std::vector<std::string>{
           "{\"step\":2,\"lo", "{", "{\"step\":2,\"loss\":2.0\n", std::string(4, '\0')}) {
    write(path, first + torn);
    JsonlWriter writer(path, 100);
    CHECK(text_of(path) == first);
  }
  write(path, first + "{\"step\":2,\"loss\":2.0}");
  JsonlWriter writer(path, 100);
  CHECK(text_of(path) == first + "{\"step\":2,\"loss\":2.0}\n");
}

TEST_CASE("an unreadable line before the last is an error that names it", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  const std::string good = "{\"step\":1,\"loss\":3.0}\n";
  for (const std::string& bad : std::vector<std::string>{"{\"step\":2,\"lo", "[1, 2]",
                                                         "{\"loss\":1.0}", "{\"step\":1.5}", ""}) {
    write(path, good + bad + "\n" + good);
    const std::string message = message_of(path, 100);
    CHECK(message == "data error: " + path.string() + ":2: \"" + bad +
                         "\": it must be a JSON object with an integer \"step\", as every line "
                         "before the last.\n"
                         "  Something other than tptrain changed the file: repair or remove the "
                         "line, or move the "
                         "file away to begin a new one.");
    CHECK(text_of(path) == good + bad + "\n" + good);
  }
}

TEST_CASE("a file that cannot be opened is an error that names it", "[metrics]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "missing" / "metrics.jsonl";
  CHECK(message_of(path, 0) == "data error: " + path.string() +
                                   ": open failed: No such file or directory.\n"
                                   "  Check that run_dir exists and may be written to.");
}

TEST_CASE("a full disk is an error that says what to do", "[metrics]") {
  JsonlWriter writer("/dev/full", 0);
  try {
    writer.eval({.step = 1});
    FAIL("no error");
  } catch (const DataError& error) {
    CHECK(std::string(error.what()) ==
          "data error: /dev/full: write failed: No space left on device.\n"
          "  Free space on this file system.");
  }
}

}  // namespace
}  // namespace tptrain::metrics
