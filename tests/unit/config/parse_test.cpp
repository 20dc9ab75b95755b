// What a valid run file means.
#include <limits>

#include "config_test.h"

namespace tptrain::testing {
namespace {

TEST_CASE("the minimal file gives every other key its default") {
  config::RunConfig expected;
  expected.run_dir = "runs/a";
  expected.model.path = "models/tiny";
  expected.data.train = {{.path = "corpus.txt"}};
  expected.train.max_steps = 10;
  CHECK(parse(kMinimal) == expected);
}

TEST_CASE("every section is read") {
  const config::RunConfig config = parse(R"(
run_dir: "runs/with space"
model:
  architecture: {model_type: qwen2, vocab_size: 512, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2,
                 num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, max_position_embeddings: 128,
                 rms_norm_eps: 1e-5, rope_theta: 1000000,
                 tie_word_embeddings: true, attention_bias: false, initializer_range: .01}
parallel: {tp_size: 2, dp_size: 4, zero_stage: 3, sequence_parallel: false, recompute: selective, reduce_gradients: per_micro_batch,
           reduce_dtype: bf16, tp_overlap: off, dp_overlap: off}
data: {train: [a.txt, {path: "b/**/*.txt"}], eval: [{path: c.txt}], tokenizer: tok, shuffle: false}
train: {seq_length: 128, micro_batch_size: 2, global_batch_size: 16, max_steps: 7, seed: 18446744073709551615, device: cpu, cpu_threads: 3,
        dtype: bf16, attention_dropout: 0.1, residual_dropout: 0.2, z_loss: 1e-4, nonfinite: skip,
        deterministic: true, cuda_graphs: off, hang_timeout_s: 90}
optimizer: {type: adamw, learning_rate: 1e-3, betas: [0.8, 0], eps: 1E-6, weight_decay: 0, max_grad_norm: +0.5,
            groups: [{match: "*.bias", weight_decay: 0.1}, {learning_rate_scale: 0, match: lm_head.weight}], moments_dtype: bf16, master_dtype: bf16}
scheduler: {type: wsd, warmup_steps: 3, decay_steps: 2, min_lr: 1.0e-4}
checkpoint: {save_steps: 5, keep: 0, resume: runs/b/checkpoints/step-00000005}
eval: {every_steps: 2, max_batches: 0}
logging: {every_steps: 4, audit_steps: 0}
)");
  CHECK(config.run_dir == "runs/with space");
  REQUIRE(config.model.architecture);
  const config::ArchitectureConfig& a = *config.model.architecture;
  CHECK(a.model_type == "qwen2");
  CHECK(a.vocab_size == 512);
  CHECK(a.hidden_size == 64);
  CHECK(a.intermediate_size == 128);
  CHECK(a.num_hidden_layers == 2);
  CHECK(a.num_attention_heads == 4);
  CHECK(a.num_key_value_heads == 2);
  CHECK(a.head_dim == 16);
  CHECK(a.max_position_embeddings == 128);
  CHECK(a.rms_norm_eps == 1e-5);
  CHECK(a.rope_theta == 1e6);
  CHECK(a.tie_word_embeddings);
  CHECK(a.attention_bias == std::optional<bool>(false));
  CHECK(a.initializer_range == 0.01);
  CHECK(config.parallel ==
        config::ParallelConfig{.tp_size = 2,
                               .dp_size = 4,
                               .zero_stage = 3,
                               .sequence_parallel = false,
                               .recompute = config::Recompute::selective,
                               .reduce_gradients = config::ReduceGradients::per_micro_batch,
                               .reduce_dtype = config::Dtype::bf16,
                               .tp_overlap = config::Overlap::off,
                               .dp_overlap = config::Overlap::off});
  CHECK(config.data == config::DataConfig{.train = {{"a.txt"}, {"b/**/*.txt"}},
                                          .eval = {{"c.txt"}},
                                          .tokenizer = "tok",
                                          .shuffle = false});
  CHECK(config.train == config::TrainConfig{.seq_length = 128,
                                            .micro_batch_size = 2,
                                            .global_batch_size = 16,
                                            .grad_accum_steps = 0,
                                            .max_steps = 7,
                                            .seed = std::numeric_limits<uint64_t>::max(),
                                            .device = config::Device::cpu,
                                            .cpu_threads = 3,
                                            .dtype = config::Dtype::bf16,
                                            .attention_dropout = 0.1,
                                            .residual_dropout = 0.2,
                                            .z_loss = 1e-4,
                                            .nonfinite = config::Nonfinite::skip,
                                            .deterministic = true,
                                            .cuda_graphs = config::CudaGraphs::off,
                                            .hang_timeout_s = 90});
  CHECK(config.optimizer ==
        config::OptimizerConfig{
            .type = config::OptimizerType::adamw,
            .learning_rate = 1e-3,
            .betas = {0.8, 0.0},
            .eps = 1e-6,
            .weight_decay = 0.0,
            .max_grad_norm = 0.5,
            .groups = {{.match = "*.bias", .weight_decay = 0.1},
                       {.match = "lm_head.weight", .weight_decay = {}, .learning_rate_scale = 0.0}},
            .moments_dtype = config::Dtype::bf16,
            .master_dtype = config::Dtype::bf16});
  CHECK(config.scheduler == config::SchedulerConfig{config::Schedule::wsd, 3, 2, 1e-4});
  CHECK(config.checkpoint == config::CheckpointConfig{5, 0, "runs/b/checkpoints/step-00000005"});
  CHECK(config.eval == config::EvalConfig{2, 0});
  CHECK(config.logging == config::LoggingConfig{4, 0});
}

TEST_CASE("places name line and column of what the file gives, and --set") {
  const auto parsed = config::parse_run_config(
      "run_dir: runs/a\nmodel:\n  path: m\ndata:\n  train:\n    - a.txt\ntrain:\n  max_steps: 5\n",
      "dir/run.yaml", {"parallel.tp_size=2"});
  CHECK(parsed.places.at("run_dir") == "dir/run.yaml:1:10");
  CHECK(parsed.places.at("model.path") == "dir/run.yaml:3:9");
  CHECK(parsed.places.at("data.train") == "dir/run.yaml:6:5");
  CHECK(parsed.places.at("train.max_steps") == "dir/run.yaml:8:14");
  CHECK(parsed.places.at("parallel.tp_size") == "--set parallel.tp_size=2");
  CHECK(parsed.places.count("parallel.dp_size") == 0);
}

TEST_CASE("anchors and aliases are resolved") {
  const auto config = parse(
      "run_dir: r\nmodel: {path: m}\ndata: {train: &files [a.txt], eval: *files}\n"
      "train: {max_steps: &n 8}\ncheckpoint: {save_steps: *n}\n");
  CHECK(config.data.eval == config.data.train);
  CHECK(config.checkpoint.save_steps == 8);
}

TEST_CASE("a quoted text is the text, and unquoted words are texts where one is wanted") {
  CHECK(parse(kMinimal + "checkpoint: {resume: \"never\"}\n").checkpoint.resume == "never");
  CHECK(parse(kMinimal, {"run_dir=2024"}).run_dir == "2024");
  CHECK(parse(kMinimal, {"run_dir=\"null\""}).run_dir == "null");
}

TEST_CASE("the ends of the bounds are accepted") {
  CHECK(parse(kMinimal, {"parallel.zero_stage=0"}).parallel.zero_stage == 0);
  CHECK(parse(kMinimal, {"parallel.zero_stage=3"}).parallel.zero_stage == 3);
  CHECK(parse(kMinimal, {"train.attention_dropout=0.999"}).train.attention_dropout == 0.999);
  CHECK(parse(kMinimal, {"train.max_steps=2147483647"}).train.max_steps == 2147483647);
  CHECK(parse(kMinimal, {"train.seed=0"}).train.seed == 0);
  CHECK(parse(kMinimal, {"optimizer.learning_rate=0"}).optimizer.learning_rate == 0.0);
  CHECK(parse(kMinimal, {"train.max_steps=+5"}).train.max_steps == 5);
}

}  // namespace
}  // namespace tptrain::testing
