// tptrain plan by itself: from a run file and from a config.json, with sizes of the command line,
// and its refusals.
#include <string>
#include <vector>

#include "../train/training_job.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

constexpr const char* kModel =
    R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu",
  "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
  "max_position_embeddings": 128, "initializer_range": 0.02})";

void check_output(const ProcessResult& result, int exit_code,
                  const std::vector<std::string>& parts) {
  INFO(result.output);
  CHECK(result.exit_code == exit_code);
  for (const std::string& part : parts) {
    INFO("expected: " << part);
    CHECK(result.output.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("the plan of a run file is that of its layout, unless the command line says otherwise",
          "[e2e]") {
  Job job;
  check_output(job.tool({"plan", "--config", "run.yaml"}), 0,
               {"layout  tp 2 x dp 2 = 4 ranks, ZeRO 1, sequence parallelism",
                " of 1 sequence of 32 tokens a dp rank, fp32, recompute none",
                "model.layers.{0..1}.mlp.down_proj.weight", "[32, 64]", "[ZeRO 1]"});
  check_output(job.tool({"plan", "--config", "run.yaml", "--tp-size", "1", "--dp-size", "4"}), 0,
               {"tp 1 x dp 4 = 4 ranks"});
  check_output(job.tool({"plan", "--config", "run.yaml", "--set", "parallel.zero_stage=0"}), 0,
               {"[ZeRO 0]"});
  check_output(job.tool({"plan", "--config", "run.yaml", "--set", "train.dtype=bf16", "--set",
                         "parallel.recompute=full", "--set", "parallel.sequence_parallel=false",
                         "--set", "parallel.zero_stage=3"}),
               0,
               {"ZeRO 3, no sequence parallelism", "bf16, recompute full", "master weights, fp32",
                "[ZeRO 3]"});
  job.edit("dp_size: 2, ", "");
  check_output(job.tool({"plan", "--config", "run.yaml"}), 0,
               {"tp 2 x dp 1 = 2 ranks", "this is the plan of dp 1, --dp-size N shows another"});
}

TEST_CASE("the plan of a model's directory", "[e2e]") {
  const Job job;
  write_text(job.directory() / "model/config.json", kModel);
  check_output(job.tool({"plan", "--model", "model", "--tp-size", "2", "--dp-size", "2"}), 0,
               {"model   qwen2: 5 layers", "tied head", "tp 2 x dp 2 = 4 ranks",
                "model.layers.{0..4}.self_attn.k_proj.bias"});
}

TEST_CASE("what the training refuses is not planned, and refused in the same words", "[e2e]") {
  struct Refused {
    std::vector<std::string> sets;
    std::string message;
  };
  const std::vector<Refused> all = {
      {{"train.global_batch_size=3"},
       "--set train.global_batch_size=3: train.global_batch_size is 3, but one micro-batch on "
       "every "
       "dp rank is 2 sequences (train.micro_batch_size 1 x dp 2): it must be a multiple of 2"},
      {{"model.architecture={model_type: gpt2, max_position_embeddings: 16, num_key_value_heads: "
        "4}"},
       "train.seq_length is 32"},
      {{"model.architecture.vocab_size=100"}, "vocab_size is 100 and the tokenizer has 257 ids"},
      {{"parallel.tp_size=3", "parallel.dp_size=1", "train.global_batch_size=1"},
       "tp sizes that work for this model: 1, 2, 4"},
      {{"optimizer.groups=[{match: \"*.frobnicate\"}]"}, "*.frobnicate"},
      {{"model.path=models/nowhere"},
       "--set model.path=models/nowhere: model.path is models/nowhere, and there is no such "
       "directory: it must be the directory of a Hugging Face model.\n  Fetch one, as in "
       "`tptrain fetch Qwen/Qwen2.5-0.5B --out models/nowhere`"},
  };
  const Job job;
  for (const Refused& refused : all) {
    std::vector<std::string> arguments = {"--config", "run.yaml"};
    for (const std::string& set : refused.sets) {
      arguments.insert(arguments.end(), {"--set", set});
    }
    int64_t ranks = 4;
    for (const std::string& set : refused.sets) ranks = set == "parallel.tp_size=3" ? 3 : ranks;
    const ProcessResult trained =
        run_process(job.command(static_cast<int>(ranks), arguments), job.directory());
    arguments.insert(arguments.begin(), "plan");
    const ProcessResult planned = job.tool(arguments);
    check_output(planned, 2, {"config error: ", refused.message});
    check_output(trained, 2, {refused.message});
  }
  // Sizes of the command line are held to it as well.
  check_output(job.tool({"plan", "--config", "run.yaml", "--dp-size", "3"}), 2,
               {"train.global_batch_size is 4", "it must be a multiple of 3"});
  check_output(job.tool({"plan", "--config", "run.yaml", "--tp-size", "2147483647"}), 2,
               {"config error: "});
}

TEST_CASE("what cannot be planned is refused with exit code 2", "[e2e]") {
  Job job;
  check_output(
      job.tool({"plan", "--config", "run.yaml", "--tp-size", "3"}), 2,
      {"config error: ", "num_key_value_heads is 2", "tp sizes that work for this model: 1, 2, 4"});
  check_output(job.tool({"plan", "--config", "nowhere.yaml"}), 2, {"config error: nowhere.yaml: "});
  check_output(job.tool({"plan", "--model", "nowhere"}), 2,
               {"config error: nowhere/config.json: "});
  write_text(job.directory() / "model/config.json", "{");
  check_output(job.tool({"plan", "--model", "model"}), 2, {"config error: ", "model/config.json"});
}

}  // namespace tptrain::testing
