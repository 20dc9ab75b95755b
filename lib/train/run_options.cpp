#include "train/run_options.h"

#include <algorithm>

#include "base/error.h"
#include "model/adapter.h"

namespace tptrain::train {
model::Recompute recompute_of(config::Recompute recompute) {
  switch (recompute) {
    case config::Recompute::none:
      return model::Recompute::none;
    case config::Recompute::selective:
      return model::Recompute::selective;
    case config::Recompute::full:
      return model::Recompute::full;
  }
  throw InternalError(problem("a word of parallel.recompute without a meaning"));
}

bool reduces_per_micro_batch(const config::ParallelConfig& parallel) {
  return parallel.zero_stage >= 2 ||
         parallel.reduce_gradients == config::ReduceGradients::per_micro_batch;
}

comm::AxisCopies axis_copies(const config::ParallelConfig& parallel) {
  const auto copies = [](config::Overlap overlap) {
    switch (overlap) {
      case config::Overlap::automatic:
        return comm::PeerCopies::automatic;
      case config::Overlap::on:
        return comm::PeerCopies::on;
      case config::Overlap::off:
        return comm::PeerCopies::off;
    }
    throw InternalError(problem("a word of parallel.tp_overlap without a meaning"));
  };
  return {.tp = copies(parallel.tp_overlap), .dp = copies(parallel.dp_overlap)};
}

model::TrainingOptions training_options(const config::RunConfig& run) {
  using tensor_parallel::SequenceParallel;
  return {.sequence_parallel =
              run.parallel.sequence_parallel ? SequenceParallel::on : SequenceParallel::off,
          .recompute = recompute_of(run.parallel.recompute),
          .attention_dropout = run.train.attention_dropout,
          .residual_dropout = run.train.residual_dropout,
          .z_loss = run.train.z_loss,
          .seed = run.train.seed,
          .fp8 = {.on = run.train.fp8 == config::Fp8::on,
                  .counts_casts = run.logging.fp8_counts,
                  .all_gather = run.train.fp8_all_gather == config::Fp8::on,
                  .first_in_bf16 = run.train.fp8_bf16_first_layers,
                  .last_in_bf16 = run.train.fp8_bf16_last_layers},
          .freeze = run.model.freeze,
          .adapter = run.adapter};
}

zero::Options zero_options(const config::RunConfig& run) {
  return {
      .zero_stage = static_cast<int>(run.parallel.zero_stage),
      .optimizer = run.optimizer,
      .reduce_per_micro_batch = reduces_per_micro_batch(run.parallel),
      .reduce_dtype = scalar_type(run.parallel.reduce_dtype),
      .seed = run.train.seed,
      .bounded = run.train.guard.action != config::GuardAction::none,
      // An adapter's base is in its own files.
      .frozen_values = run.adapter ? zero::FrozenValues::elsewhere : zero::FrozenValues::in_state};
}

Engine::Options engine_options(const ResolvedConfig& resolved) {
  const config::RunConfig& run = resolved.run;
  return {.decoder = resolved.decoder,
          .training = training_options(run),
          .zero = zero_options(run),
          .dtype = scalar_type(run.train.dtype),
          .gradient_dtype = scalar_type(run.train.gradient_dtype),
          .cuda_graphs = run.train.cuda_graphs};
}

planner::Layout planned_layout(const ResolvedConfig& resolved) {
  const config::RunConfig& run = resolved.run;
  return {.tp_size = resolved.mesh.tp_size,
          .dp_size = resolved.mesh.dp_size,
          .zero_stage = run.parallel.zero_stage,
          .seq_length = run.train.seq_length,
          .micro_batch_size = run.train.micro_batch_size,
          .micro_batches = resolved.batch.accumulation,
          .document_mask = run.data.document_mask,
          .reduce_per_micro_batch = reduces_per_micro_batch(run.parallel),
          .training = training_options(run),
          .dtype = scalar_type(run.train.dtype),
          .gradient_dtype = scalar_type(run.train.gradient_dtype),
          .reduce_dtype = scalar_type(run.parallel.reduce_dtype),
          .master_dtype = scalar_type(run.optimizer.master_dtype),
          .moments_dtype = scalar_type(run.optimizer.moments_dtype),
          .update_rule = run.optimizer.type,
          .newton_schulz_steps = run.optimizer.muon.steps,
          .copies = axis_copies(run.parallel),
          .cpu_threads = std::max<int64_t>(1, run.train.cpu_threads),
          .async_saves = run.checkpoint.async,
          .device = resolved.device == comm::DeviceType::cuda ? planner::Device::cuda
                                                              : planner::Device::cpu};
}

double flops_of_token(const ResolvedConfig& resolved) {
  const auto& adapter = resolved.run.adapter;
  const int64_t seq_length = resolved.run.train.seq_length;
  return adapter ? model::flops_per_token(resolved.decoder, *adapter, seq_length)
                 : model::flops_per_token(resolved.decoder, seq_length);
}

int64_t keep_every_saves_left(const config::RunConfig& run, int64_t step) {
  const int64_t every = run.checkpoint.keep_every;
  return every == 0 ? 0 : run.train.max_steps / every - step / every;
}

}  // namespace tptrain::train
