// What resolve derives, and that it names every problem at once.
#include "train/resolve.h"

#include "support/catch.h"
#include "support/temp_dir.h"
#include "train/run_log.h"

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

TEST_CASE("settings that cannot do what they say are told", "[train]") {
  const testing::TempDir dir;
  int logs = 0;
  const auto said = [&](const std::string& override) {
    const std::string file = (dir / std::to_string(++logs)).string();
    {
      Logger log({.console = false, .file = file});
      log_model(resolved({override}, 2), log);
    }
    const std::string text = testing::contents_of(file);
    const size_t warning = text.find("WARNING: ");
    return warning == std::string::npos ? "" : text.substr(warning + 9);
  };
  CHECK(said("model.architecture.max_position_embeddings=31") ==
        "train.seq_length is 32, the model's max_position_embeddings 31: it has not learned the "
        "positions beyond\n");
  CHECK(said("model.architecture.max_position_embeddings=32") == "");
  CHECK(said("scheduler.warmup_steps=8") ==
        "scheduler.warmup_steps is 8, train.max_steps 8: the learning rate never reaches its "
        "peak\n");
  CHECK(said("scheduler.warmup_steps=7") == "");
  CHECK(said("eval.every_steps=2") ==
        "eval says when to evaluate, and there is no data.eval: nothing is evaluated\n");
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

TEST_CASE("the training hash knows what changes numbers, not how the work is shared", "[train]") {
  const std::string batch = "train.global_batch_size=24";
  const std::string hash = resolved({batch}, 8).training_hash;
  for (const std::string set :
       {"parallel.zero_stage=0", "parallel.zero_stage=3", "parallel.sequence_parallel=false",
        "parallel.recompute=full", "parallel.reduce_gradients=per_micro_batch",
        "train.nonfinite=skip", "train.hang_timeout_s=5", "logging.audit_steps=0",
        "parallel.reduce_dtype=fp32"}) {
    INFO(set);
    CHECK(resolved({batch, set}, 8).training_hash == hash);
  }
  for (const std::string set :
       {"train.dtype=bf16", "train.attention_dropout=0.1", "train.residual_dropout=0.1",
        "train.z_loss=1e-4", "parallel.reduce_dtype=bf16", "optimizer.moments_dtype=bf16",
        "optimizer.groups=[{match: lm_head.weight, learning_rate_scale: 0.5}]",
        "scheduler.type=wsd", "data.document_mask=true"}) {
    INFO(set);
    CHECK(resolved({batch, set}, 8).training_hash != hash);
  }
  CHECK(resolved({batch, "train.dtype=bf16", "optimizer.master_dtype=bf16"}, 8).training_hash !=
        resolved({batch, "train.dtype=bf16"}, 8).training_hash);
  // Written out or derived, it is the same fall.
  CHECK(resolved({batch, "scheduler.type=wsd"}, 8).training_hash ==
        resolved({batch, "scheduler.type=wsd", "scheduler.decay_steps=1"}, 8).training_hash);
}

TEST_CASE("the cadence of the reduction follows from the ZeRO stage, unless it is said",
          "[train]") {
  using Cadence = config::ReduceGradients;
  const auto cadence = [](const std::vector<std::string>& overrides) {
    return *resolved(overrides, 4).run.parallel.reduce_gradients;
  };
  CHECK(cadence({"parallel.zero_stage=0"}) == Cadence::per_step);
  CHECK(cadence({}) == Cadence::per_step);
  CHECK(cadence({"parallel.zero_stage=2"}) == Cadence::per_micro_batch);
  CHECK(cadence({"parallel.zero_stage=3"}) == Cadence::per_micro_batch);
  CHECK(cadence({"parallel.zero_stage=1", "parallel.reduce_gradients=per_micro_batch"}) ==
        Cadence::per_micro_batch);
}

TEST_CASE("the fall of wsd is derived from max_steps, unless it is said", "[train]") {
  const auto decay = [](const std::vector<std::string>& overrides) {
    return resolved(overrides, 2).run.scheduler.decay_steps;
  };
  CHECK(decay({"scheduler.type=wsd", "train.max_steps=50"}) == 5);
  CHECK(decay({"scheduler.type=wsd", "scheduler.decay_steps=3"}) == 3);
  CHECK(decay({"scheduler.type=cosine", "train.max_steps=50"}) == 0);
}

TEST_CASE("the resolved run file is a run file, and resolves to the same training", "[train]") {
  const ResolvedConfig first =
      resolved({"parallel.zero_stage=3", "scheduler.type=wsd", "train.dtype=bf16",
                "optimizer.groups=[{match: \"*.bias\", weight_decay: 0.5}]"},
               4);
  const config::Parsed again =
      config::parse_run_config(config::to_yaml(first.run), "resolved_config.yaml", {});
  const ResolvedConfig second = resolve(again, first.decoder, 257, 4);
  CHECK(second.run == first.run);
  CHECK(second.training_hash == first.training_hash);
}

TEST_CASE("a value that code changed after parsing is refused as well", "[train]") {
  const auto refusal_of = [](auto change) {
    config::Parsed parsed = config::parse_run_config(kRunFile, "run.yaml", {});
    const model::DecoderConfig decoder = model::decoder_config(parsed.config.model, 257);
    change(parsed.config);
    return testing::message_of<ConfigError>([&] { resolve(parsed, decoder, 257, 2); });
  };
  CHECK(testing::has(refusal_of([](config::RunConfig& run) { run.parallel.tp_size = 0; }),
                     "run.yaml:4:21: parallel.tp_size is 0: it must be at least 1"));
  CHECK(testing::has(refusal_of([](config::RunConfig& run) { run.train.seq_length = 0; }),
                     "train.seq_length is 0: it must be at least 1"));
  CHECK(testing::has(refusal_of([](config::RunConfig& run) { run.train.residual_dropout = 1.0; }),
                     "train.residual_dropout is 1.0: it must be at least 0 and less than 1"));
}

TEST_CASE("what does not fit is refused with the sizes that would", "[train]") {
  CHECK(testing::has(refusal({"parallel.dp_size=3"}, 4),
                     "parallel.tp_size 2 x parallel.dp_size 3 is 6, but the job has 4 ranks"));
  CHECK(testing::has(refusal({}, 3), "parallel.tp_size is 2, but the job has 3 ranks"));
  CHECK(testing::has(refusal({"parallel.tp_size=3"}, 3), "tp sizes that work"));
  CHECK(testing::has(refusal({"train.global_batch_size=6"}, 4), "multiple of 4"));
  const std::vector<std::string> adding = {"train.dtype=bf16", "train.gradient_dtype=bf16",
                                           "train.global_batch_size=24"};
  CHECK(testing::has(refusal(adding, 4), "a step adds up 6 micro-batches in its gradients"));
  std::vector<std::string> reduced = adding;
  reduced.emplace_back("parallel.zero_stage=2");
  CHECK(resolved(reduced, 4).batch.accumulation == 6);
  const std::string all = refusal({"parallel.tp_size=3"}, 4);
  CHECK(testing::has(all, "but the job has 4 ranks"));
  CHECK(testing::has(all, "num_key_value_heads"));
}

TEST_CASE("a model's directory means its weights and its tokenizer, unless the file says otherwise",
          "[train]") {
  const testing::TempDir directory;
  const model::DecoderConfig tiny = resolved({}, 2).decoder;
  directory.put("config.json", model::to_json(tiny));
  const std::string path = "model.path=" + directory.path().string();
  const auto plain = resolved({path}, 2).run;
  CHECK(plain.model.init == config::Init::pretrained);
  const auto random = resolved({path, "model.init=random"}, 2).run;
  CHECK(random.model.init == config::Init::random);
  CHECK(resolved({}, 2).run.model.init == config::Init::random);
  CHECK(resolved({path, "model.init=random"}, 2).training_hash !=
        resolved({path}, 2).training_hash);

  config::RunConfig run;
  CHECK(tokenizer_of(run) == "bytes");
  run.model.path = "models/a";
  CHECK(tokenizer_of(run) == "models/a");
  run.data.tokenizer = "bytes";
  CHECK(tokenizer_of(run) == "bytes");
}

TEST_CASE("sequences beyond the learned positions are refused", "[train]") {
  const std::string message =
      refusal({"model.architecture.model_type=gpt2", "model.architecture.num_key_value_heads=0",
               "model.architecture.max_position_embeddings=16"},
              2);
  CHECK(testing::has(message, "and the model's max_position_embeddings is 16: it must be at most"));
}

}  // namespace tptrain::train
