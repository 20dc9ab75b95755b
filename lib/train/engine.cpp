#include "train/engine.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "optim/update_rule.h"

namespace tptrain::train {

namespace {

// A graph repeats what it was captured with: what the host decides anew at each step cannot be in
// it.
std::string obstacle_to_graph(const Engine::Options& options, at::Device device) {
  if (!device.is_cuda()) return "the device is no GPU";
  if (options.cuda_graphs == CudaGraphs::off) return "train.cuda_graphs is off";
  if (options.training.attention_dropout > 0 || options.training.residual_dropout > 0)
    return "dropout draws other numbers at each step";
  if (options.training.adapter && options.training.adapter->dropout > 0)
    return "the adapters' dropout draws other numbers at each step";
  return "";
}

// Of work that a GPU does the host's time says nothing.
zero::Options zero_options_of(const Engine::Options& options, at::Device device) {
  zero::Options zero = options.zero;
  zero.clock = device.is_cuda() ? nullptr : options.clock;
  return zero;
}

// Whole casts of weights beside shards of them would undo ZeRO-3.
model::TrainingOptions training_of(const Engine::Options& options,
                                   std::optional<tensor_parallel::Fp8Counters>& counters) {
  model::TrainingOptions training = options.training;
  if (counters) training.fp8.observer = &*counters;
  if (options.zero.zero_stage >= 3) training.fp8.keep_weights = false;
  return training;
}

}  // namespace

Engine::Engine(const Options& options, comm::Communicator& tp, comm::Communicator& dp,
               at::Device device)
    : device_(device),
      tp_(tp),
      dp_(dp),
      clock_(options.clock),
      replays_(obstacle_to_graph(options, device).empty()),
      inverse_targets_(at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device))),
      fp8_counters_(options.training.fp8.counts_casts
                        ? std::optional<tensor_parallel::Fp8Counters>(device)
                        : std::nullopt),
      decoder_(options.decoder, tp, training_of(options, fp8_counters_)),
      buckets_(decoder_.blocks(), {.rank = dp.rank(), .size = dp.size()},
               {.device = device,
                .dtype = options.dtype,
                .zero_stage = options.zero.zero_stage,
                .gradient_dtype = options.gradient_dtype,
                .rule = &optim::update_rule(options.zero.optimizer.type),
                .fp8_matrices = options.training.fp8.over_dp(dp.size())
                                    ? zero::Fp8Matrices::apart
                                    : zero::Fp8Matrices::with_others}),
      zero_(buckets_, tp, dp, zero_options_of(options, device)) {
  if (const auto& packed = decoder_.packed_parameters(); !packed.empty()) {
    const std::vector<Problem> problems = tensor_parallel::check_nf4_cuts(packed, tp.size());
    if (!problems.empty()) throw ConfigError(problems);
    packed_.emplace(packed, tensor_parallel::Nf4Base::Options{device, options.dtype});
  }
  if (!replays_) {
    how_steps_run_ = cat("issued call by call: ", obstacle_to_graph(options, device));
  } else if (options.cuda_graphs == CudaGraphs::on || tp.size() * dp.size() == 1) {
    how_steps_run_ = "replayed from a CUDA graph";
  } else {
    trial_.emplace([device] { return mark_on(device); });
  }
}

void Engine::load_packed(const sharding::TensorSource& source) {
  if (packed_) packed_->load(source);
}

zero::StepNumbers Engine::step(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens,
                               double learning_rate, double max_grad_norm) {
  if (target_tokens <= 0)
    throw DataError(problem("a global batch without a single target token")
                        .must("hold at least one")
                        .remedy("Check the masks of data.train."));
  const StepClock::In phase(clock_,
                            device_.is_cuda() ? StepPhase::launch : StepPhase::forward_backward);
  // What differs from step to step reaches the device before the step, in memory that stays.
  inverse_targets_.fill_(1.0 / static_cast<double>(target_tokens));
  zero_.prepare_step(learning_rate);
  if (trial_ && trial_->is_complete()) decide_trial();
  if (!replays_) return run_step(micro_batches, max_grad_norm);
  StepWay way = trial_ ? trial_->next() : StepWay::replayed;
  if (way == StepWay::issued) {
    drop_captured();
  } else if (!fits(micro_batches, max_grad_norm)) {
    drop_captured();
    captured_.emplace(make_room(micro_batches, max_grad_norm));
    way = StepWay::issued;  // sets the libraries up
  }
  zero::StepNumbers numbers = way == StepWay::replayed ? replay_step(micro_batches, max_grad_norm)
                                                       : run_step(micro_batches, max_grad_norm);
  if (trial_) trial_->done(way);
  return numbers;
}

// Ranks go the same way: by the slowest of them.
void Engine::decide_trial() {
  const auto [own_issued, own_replayed] = trial_->step_ms();
  trial_.reset();
  at::Tensor step_ms = at::tensor({own_issued, own_replayed}).to(device_);
  tp_.all_reduce(step_ms, comm::ReduceOp::max);
  dp_.all_reduce(step_ms, comm::ReduceOp::max);
  step_ms = step_ms.cpu();
  const auto issued = step_ms[0].item<double>();
  const auto replayed = step_ms[1].item<double>();
  replays_ = replayed <= issued;
  const std::string ms_issued = cat(fixed(issued, 1), " ms a step");
  const std::string ms_replayed = cat(fixed(replayed, 1), " ms a step");
  how_steps_run_ = replays_ ? cat("replayed from a CUDA graph: ", ms_replayed, ", against ",
                                  ms_issued, " issued call by call")
                            : cat("issued call by call: ", ms_issued, ", against ", ms_replayed,
                                  " replayed from a CUDA graph");
  if (!replays_) drop_captured();
}

// The graph last: its pool goes back to the device when nothing in it is used any more.
void Engine::drop_captured() {
  if (!captured_) return;
  std::unique_ptr<StepGraph> graph = std::move(captured_->graph);
  captured_.reset();
  release(std::move(graph), device_);
}

zero::StepNumbers Engine::run_step(const std::vector<MicroBatch>& micro_batches,
                                   double max_grad_norm) {
  zero_.begin_step();
  decoder_.weights_changed();
  at::Tensor losses = at::zeros({2}, at::TensorOptions().dtype(at::kFloat).device(device_));
  for (const MicroBatch& micro : micro_batches) {
    zero_.begin_micro_batch(&micro == &micro_batches.back() ? zero::MicroBatchPlace::last
                                                            : zero::MicroBatchPlace::before_last,
                            micro.ids);
    losses.add_(decoder_.forward_backward(micro, inverse_targets_, zero_));
  }
  zero_.finish_reduction();
  zero::StepNumbers numbers = zero_.clip(max_grad_norm, losses);
  zero_.update();
  return numbers;
}

Engine::Captured Engine::make_room(const std::vector<MicroBatch>& micro_batches,
                                   double max_grad_norm) {
  // Room for as many documents as any micro-batch had so far: a run settles on one graph.
  for (const MicroBatch& micro : micro_batches)
    most_ends_ = std::max(most_ends_, entries_of_documents(micro));
  Captured room{
      .micro_batches = {}, .max_grad_norm = max_grad_norm, .numbers = {}, .graph = nullptr};
  for (const MicroBatch& micro : micro_batches)
    room.micro_batches.push_back(room_for(micro, most_ends_));
  return room;
}

bool Engine::fits(const std::vector<MicroBatch>& micro_batches, double max_grad_norm) const {
  return captured_ && captured_->max_grad_norm == max_grad_norm &&
         std::equal(micro_batches.begin(), micro_batches.end(), captured_->micro_batches.begin(),
                    captured_->micro_batches.end(), fits_into);
}

zero::StepNumbers Engine::replay_step(const std::vector<MicroBatch>& micro_batches,
                                      double max_grad_norm) {
  Captured& captured = *captured_;
  for (size_t i = 0; i < micro_batches.size(); ++i)
    copy_into(captured.micro_batches[i], micro_batches[i]);
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
          .applied = captured.numbers.applied.clone(),
          .culprit = captured.numbers.culprit.clone()};
}

void Engine::throw_if_communication_failed() {
  tp_.throw_if_failed();
  dp_.throw_if_failed();
}

at::Tensor Engine::evaluate(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens) {
  const at::Tensor weight = at::full({}, 1.0 / static_cast<double>(target_tokens),
                                     at::TensorOptions().dtype(at::kFloat).device(device_));
  decoder_.weights_changed();
  at::Tensor losses = at::zeros({2}, at::TensorOptions().dtype(at::kFloat).device(device_));
  for (const MicroBatch& micro : micro_batches)
    losses.add_(decoder_.evaluate(micro, weight, zero_));
  dp_.all_reduce(losses, comm::ReduceOp::sum);
  return losses[0];
}

}  // namespace tptrain::train
