#include "train/engine.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {

namespace {

// A graph repeats what it was captured with: what the host decides anew at each step cannot be in
// it.
std::string obstacle_to_graph(const Engine::Options& options, at::Device device) {
  if (!device.is_cuda()) return "the device is no GPU";
  if (options.cuda_graphs == CudaGraphs::off) return "train.cuda_graphs is off";
  if (options.training.attention_dropout > 0 || options.training.residual_dropout > 0)
    return "dropout draws other numbers at each step";
  if (options.fault != EngineFault::none) return "a deliberate fault counts targets on the host";
  return "";
}

}  // namespace

MicroBatch to_device(const data::HostBatch& batch, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong);
  const auto upload = [&](const std::vector<int64_t>& tokens) {
    const at::Tensor rows = at::from_blob(const_cast<int64_t*>(tokens.data()),
                                          {batch.batch, batch.seq_length}, options);  // [B, S]
    // The copy is needed on the CPU too: the blob dies with the host batch.
    at::Tensor columns = at::empty({batch.seq_length, batch.batch},
                                   options.pinned_memory(device.is_cuda()));  // [S, B]
    columns.copy_(rows.t());
    return columns.to(device, /*non_blocking=*/true);
  };
  return {.ids = upload(batch.ids),
          .targets = upload(batch.targets),
          .step = batch.step,
          .first_sample = batch.first_sample};
}

Engine::Engine(const Options& options, comm::Communicator& tp, comm::Communicator& dp,
               at::Device device)
    : device_(device),
      tp_(tp),
      dp_(dp),
      fault_(options.fault),
      why_no_graph_(obstacle_to_graph(options, device)),
      inverse_targets_(at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device))),
      decoder_(options.decoder, tp, options.training),
      buckets_(decoder_.blocks(), {.rank = dp.rank(), .size = dp.size()},
               {.device = device, .dtype = options.dtype, .zero_stage = options.zero.zero_stage}),
      zero_(buckets_, tp, dp, options.zero) {}

at::Tensor Engine::inverse_weight(const MicroBatch& micro, size_t micro_batches) const {
  if (fault_ != EngineFault::weight_micro_batches_equally) return inverse_targets_;
  const int64_t own = std::max<int64_t>(1, micro.targets.ne(-100).sum().item<int64_t>());
  return at::full_like(inverse_targets_, 1.0 / (static_cast<double>(own) *
                                                static_cast<double>(micro_batches) * dp_.size()));
}

zero::StepNumbers Engine::step(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens,
                               double learning_rate, double max_grad_norm) {
  if (target_tokens <= 0)
    throw DataError(problem("a global batch without a single target token")
                        .must("hold at least one")
                        .remedy("Check the masks of data.train."));
  // What differs from step to step reaches the device before the step, in memory that stays.
  inverse_targets_.fill_(1.0 / static_cast<double>(target_tokens));
  zero_.set_learning_rate(learning_rate);
  if (!why_no_graph_.empty()) return run_step(micro_batches, max_grad_norm);
  if (fits(micro_batches, max_grad_norm)) return replay_step(micro_batches, max_grad_norm);
  captured_.reset();
  captured_.emplace(Captured{
      .micro_batches = {}, .max_grad_norm = max_grad_norm, .numbers = {}, .graph = nullptr});
  for (const MicroBatch& micro : micro_batches) {
    captured_->micro_batches.push_back(
        {.ids = micro.ids.clone(), .targets = micro.targets.clone()});
  }
  const int64_t pushes = tp_.counters().pushes;
  zero::StepNumbers numbers = run_step(micro_batches, max_grad_norm);
  if (tp_.counters().pushes > pushes) {
    // Measured on two H100, Qwen2.5-0.5B 2048 x 8: 73 ms issued, 89 ms replayed. Products of this
    // size leave the host time enough.
    why_no_graph_ =
        "pieces of the sequence pushed between GPUs run beside the products only where "
        "they are issued call by call";
    captured_.reset();
  }
  return numbers;
}

zero::StepNumbers Engine::run_step(const std::vector<MicroBatch>& micro_batches,
                                   double max_grad_norm) {
  zero_.begin_step();
  at::Tensor losses = at::zeros({2}, at::TensorOptions().dtype(at::kFloat).device(device_));
  for (const MicroBatch& micro : micro_batches) {
    zero_.begin_micro_batch(&micro == &micro_batches.back() ? zero::MicroBatchPlace::last
                                                            : zero::MicroBatchPlace::before_last,
                            micro.ids);
    losses.add_(
        decoder_.forward_backward(micro, inverse_weight(micro, micro_batches.size()), zero_));
  }
  zero_.finish_reduction();
  zero::StepNumbers numbers = zero_.clip(max_grad_norm, losses);
  zero_.update();
  return numbers;
}

bool Engine::fits(const std::vector<MicroBatch>& micro_batches, double max_grad_norm) const {
  return captured_ && captured_->max_grad_norm == max_grad_norm &&
         std::equal(micro_batches.begin(), micro_batches.end(), captured_->micro_batches.begin(),
                    captured_->micro_batches.end(), [](const MicroBatch& a, const MicroBatch& b) {
                      return a.ids.sizes() == b.ids.sizes();
                    });
}

zero::StepNumbers Engine::replay_step(const std::vector<MicroBatch>& micro_batches,
                                      double max_grad_norm) {
  Captured& captured = *captured_;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    captured.micro_batches[i].ids.copy_(micro_batches[i].ids);
    captured.micro_batches[i].targets.copy_(micro_batches[i].targets);
  }
  if (!captured.graph) {
    zero_.assume_updated();
    captured.graph = capture(
        device_, [&] { captured.numbers = run_step(captured.micro_batches, max_grad_norm); });
  }
  captured.graph->replay();
  zero_.assume_updated();
  // The next replay writes into the same memory; the host may read this step's numbers after it.
  return {.norm = captured.numbers.norm.clone(),
          .losses = captured.numbers.losses.clone(),
          .finite = captured.numbers.finite.clone(),
          .culprit = captured.numbers.culprit.clone()};
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
