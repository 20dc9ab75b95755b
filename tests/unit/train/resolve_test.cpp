// What resolve derives, and that it names every problem at once.
#include "train/resolve.h"

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::train {
namespace {

constexpr const char* kRunFile = R"(run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
parallel: {tp_size: 2}
data: {train: [text]}
train: {seq_length: 32, micro_batch_size: 2, max_steps: 8, device: cpu}
)";

ResolvedConfig resolved(const std::vector<std::string>& overrides, int ranks) {
  const config::Parsed parsed = config::parse_run_config(kRunFile, "run.yaml", overrides);
  return resolve(parsed, model::decoder_config(parsed.config.model, 257), 257, ranks);
}

std::string refusal(const std::vector<std::string>& overrides, int ranks) {
  return testing::message_of<ConfigError>([&] { resolved(overrides, ranks); });
}

}  // namespace

TEST_CASE("dp and the global batch are derived", "[train]") {
  const ResolvedConfig config = resolved({"train.grad_accum_steps=3"}, 8);
  CHECK(config.mesh.dp_size == 4);
  CHECK(config.run.parallel.dp_size == 4);
  CHECK(config.batch.accumulation == 3);
  CHECK(config.run.train.global_batch_size == 2 * 3 * 4);
  CHECK(config.run.train.grad_accum_steps == 0);  // the global batch says it from here on

  const ResolvedConfig same = resolved({"train.global_batch_size=24"}, 2);
  CHECK(same.batch.accumulation == 12);
}

TEST_CASE("the training hash ignores the layout and where things are written", "[train]") {
  const std::string hash = resolved({"train.global_batch_size=24"}, 8).training_hash;
  CHECK(resolved({"train.global_batch_size=24"}, 2).training_hash == hash);
  CHECK(resolved({"train.global_batch_size=24", "run_dir=elsewhere", "logging.every_steps=7",
                  "parallel.tp_size=1", "train.micro_batch_size=1"},
                 2)
            .training_hash == hash);
  CHECK(resolved({"train.global_batch_size=24", "optimizer.learning_rate=0.5"}, 2).training_hash !=
        hash);
  CHECK(resolved({"train.global_batch_size=24", "train.seed=43"}, 2).training_hash != hash);
  CHECK(resolved({"train.global_batch_size=12"}, 2).training_hash != hash);
}

TEST_CASE("what does not fit is refused with the sizes that would", "[train]") {
  CHECK(testing::has(refusal({"parallel.dp_size=3"}, 4),
                     "parallel.tp_size 2 x parallel.dp_size 3 is 6, but the job has 4 ranks"));
  CHECK(testing::has(refusal({}, 3), "parallel.tp_size is 2, but the job has 3 ranks"));
  CHECK(testing::has(refusal({"parallel.tp_size=4"}, 4), "tp sizes that work"));
  CHECK(testing::has(refusal({"train.global_batch_size=6"}, 4), "multiple of 4"));
  const std::string all = refusal({"parallel.tp_size=4"}, 6);
  CHECK(testing::has(all, "but the job has 6 ranks"));
  CHECK(testing::has(all, "num_key_value_heads"));
}

TEST_CASE("a model's directory is not silently trained from random values", "[train]") {
  const testing::TempDir directory;
  const model::DecoderConfig tiny = resolved({}, 2).decoder;
  directory.put("config.json", model::to_json(tiny));
  const std::string path = "model.path=" + directory.path().string();
  const std::string message = refusal({path}, 2);
  CHECK(testing::has(message, "config error: --set " + path + ": "));
  CHECK(testing::has(message, "without model.init: it must stand beside model.init: random"));
  CHECK(resolved({path, "model.init=random"}, 2).decoder == tiny);
}

}  // namespace tptrain::train
