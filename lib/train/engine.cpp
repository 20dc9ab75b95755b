#include "train/engine.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {

MicroBatch to_device(const data::HostBatch& batch, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong);
  const auto upload = [&](const std::vector<int64_t>& tokens) {
    const at::Tensor rows = at::from_blob(const_cast<int64_t*>(tokens.data()),
                                          {batch.batch, batch.seq_length}, options);  // [B, S]
    // The copy is needed on the CPU too: the blob dies with the host batch.
    return rows.t()
        .clone(at::MemoryFormat::Contiguous)
        .to(device, /*non_blocking=*/false);  // [S, B]
  };
  return {.ids = upload(batch.ids),
          .targets = upload(batch.targets),
          .step = batch.step,
          .first_sample = batch.first_sample};
}

Engine::Engine(const Options& options, comm::Communicator& tp, comm::Communicator& dp,
               at::Device device)
    : device_(device),
      dp_(dp),
      fault_(options.fault),
      decoder_(options.decoder, tp, options.training),
      buckets_(decoder_.blocks(), {.rank = dp.rank(), .size = dp.size()},
               {.device = device, .dtype = options.dtype, .zero_stage = options.zero.zero_stage}),
      zero_(buckets_, tp, dp, options.zero) {}

at::Tensor Engine::inverse_weight(const MicroBatch& micro, size_t micro_batches,
                                  int64_t target_tokens) const {
  double weight = 1.0 / static_cast<double>(target_tokens);
  if (fault_ == EngineFault::weight_micro_batches_equally) {
    const int64_t own = std::max<int64_t>(1, micro.targets.ne(-100).sum().item<int64_t>());
    weight = 1.0 / (static_cast<double>(own) * static_cast<double>(micro_batches) * dp_.size());
  }
  return at::full({}, weight, at::TensorOptions().dtype(at::kFloat).device(device_));
}

zero::StepNumbers Engine::step(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens,
                               double learning_rate, double max_grad_norm) {
  if (target_tokens <= 0)
    throw DataError(problem("a global batch without a single target token")
                        .must("hold at least one")
                        .remedy("Check the masks of data.train."));
  zero_.begin_step();
  at::Tensor losses = at::zeros({2}, at::TensorOptions().dtype(at::kFloat).device(device_));
  for (const MicroBatch& micro : micro_batches) {
    losses.add_(decoder_.forward_backward(
        micro, inverse_weight(micro, micro_batches.size(), target_tokens), zero_));
  }
  zero_.finish_reduction();
  zero::StepNumbers numbers = zero_.clip(max_grad_norm, losses);
  zero_.update(learning_rate);
  return numbers;
}

at::Tensor Engine::evaluate(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens) {
  const at::Tensor weight = at::full({}, 1.0 / static_cast<double>(target_tokens),
                                     at::TensorOptions().dtype(at::kFloat).device(device_));
  at::Tensor losses = at::zeros({2}, at::TensorOptions().dtype(at::kFloat).device(device_));
  for (const MicroBatch& micro : micro_batches)
    losses.add_(decoder_.evaluate(micro, weight, zero_));
  dp_.all_reduce(losses, comm::ReduceOp::sum);
  return losses[0];
}

}  // namespace tptrain::train
