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

// Entries of documents' ends are rounded up to these, by repeating the last: the number of
// documents changes from batch to batch, and a captured step takes as many or fewer.
constexpr int64_t kFewestEnds = 16;

int64_t rounded_ends(int64_t entries) {
  int64_t rounded = kFewestEnds;
  while (rounded < entries) rounded *= 2;
  return rounded;
}

at::Tensor view_of(const std::vector<int64_t>& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<int64_t*>(values.data()), shape, at::kLong);
}

/// By page-locked memory where `device` is a GPU: from other memory the copy would be the host's
/// own, and wait. A copy on the CPU too: the host batch, of which this is a view, dies.
at::Tensor upload(const at::Tensor& host, at::Device device, at::ScalarType type = at::kLong) {
  at::Tensor staged =
      at::empty(host.sizes(), at::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
  staged.copy_(host);
  return staged.to(device, /*non_blocking=*/true);
}

// All rows end to end as one sequence: kernels and slices of the sequence need not know of rows.
MicroBatch documents_to_device(const data::HostBatch& batch, at::Device device,
                               int64_t most_documents) {
  const int64_t tokens = batch.batch * batch.seq_length;
  const int64_t entries = rounded_ends(1 + std::max(most_documents, batch.documents()));
  std::vector<int64_t> ends = {0};
  ends.insert(ends.end(), batch.document_ends.begin(), batch.document_ends.end());
  ends.resize(static_cast<size_t>(entries), tokens);
  const std::vector<int64_t> positions = batch.positions();
  return {.ids = upload(view_of(batch.ids, {tokens, 1}), device),
          .targets = upload(view_of(batch.targets, {tokens, 1}), device),
          .documents =
              model::PackedDocuments{
                  .attention = {.ends = upload(view_of(ends, {entries}), device, at::kInt),
                                .longest = batch.seq_length},
                  .positions = upload(view_of(positions, {tokens}), device)},
          .step = batch.step,
          .first_sample = batch.first_sample};
}

/// Whether a micro-batch can take the place of a captured step's.
bool fits_into(const MicroBatch& micro, const MicroBatch& captured) {
  if (micro.ids.sizes() != captured.ids.sizes()) return false;
  if (!micro.documents || !captured.documents)
    return micro.documents.has_value() == captured.documents.has_value();
  const kernels::Documents& own = micro.documents->attention;
  const kernels::Documents& room = captured.documents->attention;
  return own.longest == room.longest && own.ends.size(0) <= room.ends.size(0);
}

/// Of a captured step's micro-batch, from one that fits.
void copy_documents(model::PackedDocuments& to, const model::PackedDocuments& from) {
  to.positions.copy_(from.positions);
  at::Tensor& ends = to.attention.ends;
  const int64_t given = from.attention.ends.size(0);
  ends.narrow(0, 0, given).copy_(from.attention.ends);
  ends.narrow(0, given, ends.size(0) - given).fill_(from.positions.size(0));
}

}  // namespace

MicroBatch to_device(const data::HostBatch& batch, at::Device device, int64_t most_documents) {
  if (batch.documents() > 0) return documents_to_device(batch, device, most_documents);
  const auto columns = [&](const std::vector<int64_t>& rows) {
    return upload(view_of(rows, {batch.batch, batch.seq_length}).t(), device);  // [S, B]
  };
  return {.ids = columns(batch.ids),
          .targets = columns(batch.targets),
          .step = batch.step,
          .first_sample = batch.first_sample};
}

Engine::Engine(const Options& options, comm::Communicator& tp, comm::Communicator& dp,
               at::Device device)
    : device_(device),
      tp_(tp),
      dp_(dp),
      fault_(options.fault),
      replays_(obstacle_to_graph(options, device).empty()),
      inverse_targets_(at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device))),
      decoder_(options.decoder, tp, options.training),
      buckets_(decoder_.blocks(), {.rank = dp.rank(), .size = dp.size()},
               {.device = device, .dtype = options.dtype, .zero_stage = options.zero.zero_stage}),
      zero_(buckets_, tp, dp, options.zero) {
  if (!replays_) {
    how_steps_run_ = cat("issued call by call: ", obstacle_to_graph(options, device));
  } else if (options.cuda_graphs == CudaGraphs::on || tp.size() * dp.size() == 1) {
    how_steps_run_ = "replayed from a CUDA graph";
  } else {
    trial_.emplace(device);
  }
}

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
  if (trial_ && trial_->is_complete()) settle_trial();
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
void Engine::settle_trial() {
  at::Tensor step_ms = trial_->step_ms();
  trial_.reset();
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

Engine::Captured Engine::make_room(const std::vector<MicroBatch>& micro_batches,
                                   double max_grad_norm) {
  // Room for as many documents as any micro-batch had so far: a run settles on one graph.
  for (const MicroBatch& micro : micro_batches) {
    if (micro.documents) most_ends_ = std::max(most_ends_, micro.documents->attention.ends.size(0));
  }
  Captured room{
      .micro_batches = {}, .max_grad_norm = max_grad_norm, .numbers = {}, .graph = nullptr};
  for (const MicroBatch& micro : micro_batches) {
    MicroBatch& mine = room.micro_batches.emplace_back(
        MicroBatch{.ids = at::empty_like(micro.ids), .targets = at::empty_like(micro.targets)});
    if (!micro.documents) continue;
    const model::PackedDocuments& documents = *micro.documents;
    mine.documents = model::PackedDocuments{
        .attention = {.ends = at::empty({most_ends_}, documents.attention.ends.options()),
                      .longest = documents.attention.longest},
        .positions = at::empty_like(documents.positions)};
  }
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
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    captured.micro_batches[i].ids.copy_(micro_batches[i].ids);
    captured.micro_batches[i].targets.copy_(micro_batches[i].targets);
    if (micro_batches[i].documents)
      copy_documents(*captured.micro_batches[i].documents, *micro_batches[i].documents);
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
