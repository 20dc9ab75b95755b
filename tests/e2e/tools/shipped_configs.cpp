// The run files of configs/ with the real models' config.json and tokenizers: each can be planned,
// and the small one trains a few steps, with 2 of its 24 layers, since a checkpoint of the whole is
// 6 GB.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "../train/training_job.h"
#include "base/text.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

std::string data() {
  const char* path = std::getenv("TPTRAIN_TEST_DATA");
  REQUIRE(path != nullptr);
  return path;
}

struct Shipped {
  std::string config;
  std::string model;
  std::string tokenizer;
  std::string layout;
  std::string parameters;
};

const std::vector<Shipped>& shipped() {
  static const std::vector<Shipped> all = {
      {"qwen2.5_0.5b_tp2_dp2", "Qwen2.5-0.5B", "qwen2", "tp 2 x dp 2 = 4 ranks", "494,032,768"},
      {"qwen2.5_0.5b_lora", "Qwen2.5-0.5B", "qwen2", "tp 2 x dp 2 = 4 ranks", "502,830,976"},
      {"qwen2_7b_tp4_dp2", "Qwen2-7B", "qwen2", "tp 4 x dp 2 = 8 ranks", "7,615,616,512"},
      {"llama3_8b_tp4_dp2", "Meta-Llama-3-8B", "llama3", "tp 4 x dp 2 = 8 ranks", "8,030,261,248"},
  };
  return all;
}

std::vector<std::string> places(const Shipped& run) {
  return {"--config", cat(TPTRAIN_SOURCE_DIR, "/configs/", run.config, ".yaml"),
          "--set",    cat("model.path=", data(), "/models/", run.model),
          "--set",    cat("data.tokenizer=", data(), "/tokenizers/", run.tokenizer)};
}

}  // namespace

TEST_CASE("every shipped config of a published model can be planned", "[e2e][data]") {
  const Job job;
  for (const Shipped& run : shipped()) {
    std::vector<std::string> arguments = places(run);
    arguments.insert(arguments.begin(), "plan");
    const ProcessResult result = job.tool(arguments);
    INFO(result.output);
    CHECK(result.exit_code == 0);
    CHECK(result.output.find(run.layout) != std::string::npos);
    CHECK(result.output.find(run.parameters) != std::string::npos);
  }
}

TEST_CASE("Qwen2.5-0.5B trains on WikiText-2 with its own tokenizer, tp 2 x dp 2", "[e2e][data]") {
  const Job job;
  std::vector<std::string> arguments = places(shipped()[0]);
  auto config = nlohmann::json::parse(read_text(cat(data(), "/models/Qwen2.5-0.5B/config.json")));
  config["num_hidden_layers"] = 2;
  config["max_window_layers"] = 2;
  write_text(job.directory() / "model/config.json", config.dump());
  const std::string text = cat(data(), "/text/wikitext-2-raw/");
  for (const std::string& setting :
       {std::string("run_dir=run"), std::string("model.path=model"),
        std::string("model.init=random"),
        std::string("train.dtype=fp32"),  // quicker than bf16 on CPUs
        std::string("train.max_steps=2"), std::string("train.global_batch_size=2"),
        std::string("eval.max_batches=1"), std::string("scheduler.warmup_steps=0"),
        cat("data.train=[\"", text, "train_head.txt\"]"),
        cat("data.eval=[\"", text, "valid.txt\"]"), std::string("checkpoint.save_steps=0")}) {
    arguments.push_back("--set");
    arguments.push_back(setting);
  }
  const ProcessResult result =
      run_process(job.command(4, arguments), job.directory(), 3 * kPatience);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const std::string metrics = read_text(job.run_dir() / "metrics.jsonl");
  const size_t at = metrics.find("{\"step\":1,\"loss\"");
  REQUIRE(at != std::string::npos);
  const auto first = nlohmann::json::parse(metrics.substr(at, metrics.find('\n', at) - at));
  // Random values know nothing: the loss is that of 151,936 equally likely tokens, ln 151936
  // = 11.93, and a little more.
  CHECK(first.at("loss").get<double>() > 11.5);
  CHECK(first.at("loss").get<double>() < 12.6);
  CHECK(metrics.find("eval_loss") != std::string::npos);

  // What a user says goes through the tokenizer's chat template: turns and marks around four
  // tokens.
  const ProcessResult answer =
      job.tool({"generate", "--checkpoint", "run", "--chat", "--system", "Be brief.", "--prompt",
                "How are you?", "--max-new-tokens", "2"});
  INFO(answer.output);
  CHECK(answer.exit_code == 0);
  CHECK(answer.output.find("20 + ") != std::string::npos);
}

}  // namespace tptrain::testing
