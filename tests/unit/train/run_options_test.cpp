// Which option each key of a run file reaches, and that it reaches no other: a key that is read
// nowhere, or a pair that is swapped, trains another run than the file says.
#include "train/run_options.h"

#include <map>

#include "base/text.h"
#include "support/catch.h"

namespace tptrain::train {
namespace {

using Facts = std::map<std::string, std::string>;

constexpr const char* kRunFile = R"(run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2}
parallel: {tp_size: 2}
data: {train: [text]}
train: {seq_length: 32, micro_batch_size: 2, max_steps: 8, device: cpu, dtype: bf16}
)";

template <typename Value>
std::string shown(Value value) {
  return std::to_string(static_cast<int64_t>(value));
}
std::string number(double value) { return cat(value); }

/// All that a run and its forecast are given, as text.
Facts options_of(const std::vector<std::string>& overrides) {
  const config::Parsed parsed = config::parse_run_config(kRunFile, "run.yaml", overrides);
  const ResolvedConfig resolved =
      resolve(parsed, model::decoder_config(parsed.config.model, 257), 257, /*world_size=*/4);
  const Engine::Options engine = engine_options(resolved);
  const model::TrainingOptions& training = engine.training;
  const zero::Options& zero = engine.zero;
  const planner::Layout plan = planned_layout(resolved);
  const comm::AxisCopies copies = axis_copies(resolved.run.parallel);
  Facts facts = {
      {"sequence_parallel", shown(training.sequence_parallel)},
      {"recompute", shown(training.recompute)},
      {"attention_dropout", number(training.attention_dropout)},
      {"residual_dropout", number(training.residual_dropout)},
      {"z_loss", number(training.z_loss)},
      {"seed", shown(training.seed)},
      {"fp8", shown(training.fp8.on)},
      {"fp8 counts", shown(training.fp8.counts_casts)},
      {"fp8 all_gather", shown(training.fp8.all_gather)},
      {"fp8 first", shown(training.fp8.first_in_bf16)},
      {"fp8 last", shown(training.fp8.last_in_bf16)},
      {"freeze", join(training.freeze, " ")},
      {"adapter rank", shown(training.adapter ? training.adapter->rank : 0)},
      {"dtype", shown(engine.dtype)},
      {"gradient_dtype", shown(engine.gradient_dtype)},
      {"cuda_graphs", shown(engine.cuda_graphs)},
      {"zero stage", shown(zero.zero_stage)},
      {"zero per micro-batch", shown(zero.reduce_per_micro_batch)},
      {"zero reduce_dtype", shown(zero.reduce_dtype)},
      {"zero seed", shown(zero.seed)},
      {"zero bounded", shown(zero.bounded)},
      {"zero frozen", shown(zero.frozen_values)},
      {"optimizer type", shown(zero.optimizer.type)},
      {"optimizer betas", cat(zero.optimizer.betas[0], " ", zero.optimizer.betas[1])},
      {"optimizer eps", number(zero.optimizer.eps)},
      {"optimizer weight_decay", number(zero.optimizer.weight_decay)},
      {"optimizer master_dtype", shown(zero.optimizer.master_dtype)},
      {"optimizer moments_dtype", shown(zero.optimizer.moments_dtype)},
      {"optimizer muon", cat(zero.optimizer.muon.momentum, " ", zero.optimizer.muon.nesterov, " ",
                             zero.optimizer.muon.steps)},
      {"copies tp", shown(copies.tp)},
      {"copies dp", shown(copies.dp)},
      {"plan stage", shown(plan.zero_stage)},
      {"plan seq_length", shown(plan.seq_length)},
      {"plan micro_batch_size", shown(plan.micro_batch_size)},
      {"plan micro_batches", shown(plan.micro_batches)},
      {"plan document_mask", shown(plan.document_mask)},
      {"plan per micro-batch", shown(plan.reduce_per_micro_batch)},
      {"plan dtype", shown(plan.dtype)},
      {"plan gradient_dtype", shown(plan.gradient_dtype)},
      {"plan reduce_dtype", shown(plan.reduce_dtype)},
      {"plan master_dtype", shown(plan.master_dtype)},
      {"plan moments_dtype", shown(plan.moments_dtype)},
      {"plan rule", shown(plan.update_rule)},
      {"plan muon steps", shown(plan.newton_schulz_steps)},
      {"plan copies tp", shown(plan.copies.tp)},
      {"plan copies dp", shown(plan.copies.dp)},
      {"plan cpu_threads", shown(plan.cpu_threads)},
      {"plan async", shown(plan.async_saves)},
      {"plan device", shown(plan.device)},
  };
  const model::TrainingOptions& planned = plan.training;
  facts["plan training"] =
      shown(planned.sequence_parallel == training.sequence_parallel &&
            planned.recompute == training.recompute &&
            planned.attention_dropout == training.attention_dropout &&
            planned.residual_dropout == training.residual_dropout &&
            planned.fp8.on == training.fp8.on && planned.freeze == training.freeze);
  return facts;
}

}  // namespace

TEST_CASE("each key of a run file reaches its option, and no other", "[train]") {
  using config::Dtype;
  const std::string bf16 = shown(at::kBFloat16), fp32 = shown(at::kFloat);
  struct Case {
    std::vector<std::string> set;
    Facts expected;  // what differs from the file without it
  };
  const std::vector<Case> cases = {
      {{"parallel.sequence_parallel=false"},
       {{"sequence_parallel", shown(tensor_parallel::SequenceParallel::off)}}},
      {{"parallel.recompute=full"}, {{"recompute", shown(model::Recompute::full)}}},
      {{"parallel.recompute=selective"}, {{"recompute", shown(model::Recompute::selective)}}},
      {{"parallel.zero_stage=0"}, {{"zero stage", "0"}, {"plan stage", "0"}}},
      {{"parallel.zero_stage=2"},
       {{"zero stage", "2"},
        {"zero per micro-batch", "1"},
        {"plan stage", "2"},
        {"plan per micro-batch", "1"}}},
      {{"parallel.reduce_gradients=per_micro_batch"},
       {{"zero per micro-batch", "1"}, {"plan per micro-batch", "1"}}},
      {{"parallel.reduce_dtype=bf16"}, {{"zero reduce_dtype", bf16}, {"plan reduce_dtype", bf16}}},
      {{"parallel.tp_overlap=off"},
       {{"copies tp", shown(comm::PeerCopies::off)},
        {"plan copies tp", shown(comm::PeerCopies::off)}}},
      {{"parallel.dp_overlap=on"},
       {{"copies dp", shown(comm::PeerCopies::on)},
        {"plan copies dp", shown(comm::PeerCopies::on)}}},
      {{"train.dtype=fp32"}, {{"dtype", fp32}, {"plan dtype", fp32}}},
      {{"train.gradient_dtype=bf16"}, {{"gradient_dtype", bf16}, {"plan gradient_dtype", bf16}}},
      {{"train.z_loss=0.25"}, {{"z_loss", "0.25"}}},
      {{"train.attention_dropout=0.25"}, {{"attention_dropout", "0.25"}}},
      {{"train.residual_dropout=0.25"}, {{"residual_dropout", "0.25"}}},
      {{"train.seed=7"}, {{"seed", "7"}, {"zero seed", "7"}}},
      {{"train.fp8=on"}, {{"fp8", "1"}}},
      {{"train.fp8=on", "train.fp8_all_gather=on"}, {{"fp8", "1"}, {"fp8 all_gather", "1"}}},
      {{"train.fp8=on", "train.fp8_bf16_first_layers=1"}, {{"fp8", "1"}, {"fp8 first", "1"}}},
      {{"train.fp8=on", "train.fp8_bf16_last_layers=1"}, {{"fp8", "1"}, {"fp8 last", "1"}}},
      {{"train.fp8=on", "logging.fp8_counts=true"}, {{"fp8", "1"}, {"fp8 counts", "1"}}},
      {{"train.guard={action: skip}"}, {{"zero bounded", "1"}}},
      {{"train.seq_length=64"}, {{"plan seq_length", "64"}}},
      {{"train.micro_batch_size=1"}, {{"plan micro_batch_size", "1"}}},
      {{"train.grad_accum_steps=3"}, {{"plan micro_batches", "3"}}},
      {{"train.cpu_threads=5"}, {{"plan cpu_threads", "5"}}},
      {{"data.document_mask=true"}, {{"plan document_mask", "1"}}},
      {{"checkpoint.async=false"}, {{"plan async", "0"}}},
      {{"model.freeze=[model.embed_tokens.weight]"}, {{"freeze", "model.embed_tokens.weight"}}},
      {{"adapter={rank: 3}"},
       {{"adapter rank", "3"}, {"zero frozen", shown(zero::FrozenValues::elsewhere)}}},
      {{"train.cuda_graphs=off"}, {{"cuda_graphs", shown(config::CudaGraphs::off)}}},
      {{"optimizer.type=lion"},
       {{"optimizer type", shown(config::OptimizerType::lion)},
        {"plan rule", shown(config::OptimizerType::lion)}}},
      {{"optimizer.type=muon", "optimizer.muon={momentum: 0.5, nesterov: false, steps: 3}"},
       {{"optimizer type", shown(config::OptimizerType::muon)},
        {"plan rule", shown(config::OptimizerType::muon)},
        {"optimizer muon", "0.5 0 3"},
        {"plan muon steps", "3"}}},
      {{"optimizer.betas=[0.5, 0.75]"}, {{"optimizer betas", "0.5 0.75"}}},
      {{"optimizer.eps=0.25"}, {{"optimizer eps", "0.25"}}},
      {{"optimizer.weight_decay=0.25"}, {{"optimizer weight_decay", "0.25"}}},
      {{"optimizer.master_dtype=bf16"},
       {{"optimizer master_dtype", shown(Dtype::bf16)}, {"plan master_dtype", bf16}}},
      {{"optimizer.moments_dtype=bf16"},
       {{"optimizer moments_dtype", shown(Dtype::bf16)}, {"plan moments_dtype", bf16}}},
  };
  const Facts plain = options_of({});
  for (const Case& one : cases) {
    INFO(join(one.set, " "));
    Facts expected = plain;
    for (const auto& [name, value] : one.expected) {
      CHECK(plain.at(name) != value);
      expected[name] = value;
    }
    CHECK(options_of(one.set) == expected);
  }
}

}  // namespace tptrain::train
