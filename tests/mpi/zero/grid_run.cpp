// Training of the synthetic model on a grid, and the references beside it.
#include "mpi/zero/grid_run.h"

#include <cmath>
#include <map>

#include "base/text.h"
#include "optim/adamw.h"

namespace tptrain::testing {
namespace {

std::map<std::string, size_t> index_by_name() {
  std::map<std::string, size_t> index;
  for (const GlobalTensor& tensor : global_tensors()) index.emplace(tensor.name, index.size());
  return index;
}

}  // namespace

config::OptimizerConfig optimizer_config() {
  return {.learning_rate = 1e-2, .weight_decay = 0.1, .max_grad_norm = 1.0};
}

std::string Layout::text() const { return cat("tp ", tp, " x dp ", dp); }

std::vector<Layout> layouts() {
  std::vector<Layout> result;
  for (int tp = 1; tp <= session().size(); tp *= 2) {
    result.push_back({.tp = tp, .dp = session().size() / tp});
  }
  return result;
}

GridRun::GridRun(const Layout& layout, int zero_stage, zero::Fault fault)
    : mesh(session(), {.dp_size = layout.dp, .tp_size = layout.tp}, comm::DeviceType::cpu),
      model(synthetic_model(mesh.tp_rank(), layout.tp)),
      buckets(model.blocks, {.rank = mesh.dp_rank(), .size = layout.dp}, at::kCPU),
      zero(buckets, mesh.tp(), mesh.dp(),
           {.zero_stage = zero_stage, .optimizer = optimizer_config(), .fault = fault}) {
  zero.initialise(kSeed);
}

zero::GradientNorm GridRun::step(int index) {
  const config::OptimizerConfig optimizer = optimizer_config();
  zero.begin_step();
  add_samples_of(model, index, buckets.dp());
  zero.finish_reduction();
  const zero::GradientNorm norm = zero.clip(optimizer.max_grad_norm);
  zero.update(optimizer.learning_rate);
  return norm;
}

std::vector<at::Tensor> GridRun::put_together(const std::vector<sharding::StatePiece>& pieces,
                                              sharding::StateKind kind,
                                              std::vector<std::string>& complaints) {
  const std::vector<GlobalTensor> tensors = global_tensors();
  const std::map<std::string, size_t> index = index_by_name();
  std::vector<int64_t> offsets;
  int64_t numel = 0;
  for (const GlobalTensor& tensor : tensors) {
    offsets.push_back(numel);
    numel += tensor.numel();
  }
  at::Tensor values = at::zeros({numel}), counts = at::zeros({numel});
  for (const sharding::StatePiece& piece : pieces) {
    if (piece.kind != kind || !piece.save) continue;
    const int64_t offset = offsets[index.at(piece.spec.name)];
    for (const sharding::Run& run : runs_of(piece.spec, piece.begin, piece.end)) {
      const int64_t from = run.local_begin - piece.begin;
      values.narrow(0, offset + run.global_begin, run.count)
          .copy_(piece.data.narrow(0, from, run.count));
      counts.narrow(0, offset + run.global_begin, run.count).add_(1);
    }
  }
  mesh.world().all_reduce(values, comm::ReduceOp::sum);
  mesh.world().all_reduce(counts, comm::ReduceOp::sum);
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < tensors.size(); ++i) {
    result.push_back(values.narrow(0, offsets[i], tensors[i].numel()));
    const at::Tensor count = counts.narrow(0, offsets[i], tensors[i].numel());
    if (!at::equal(count, at::ones_like(count))) {
      complaints.push_back(cat("elements of ", tensors[i].name, " are not saved exactly once"));
    }
  }
  return result;
}

std::vector<at::Tensor> GridRun::assembled(sharding::StateKind kind,
                                           std::vector<std::string>& complaints) {
  return put_together(zero.state_dict().pieces, kind, complaints);
}

std::vector<at::Tensor> GridRun::gradient(std::vector<std::string>& complaints) {
  return put_together(zero.gradient_pieces().pieces, sharding::StateKind::master, complaints);
}

std::vector<std::string> GridRun::stale_parameters(const std::vector<at::Tensor>& master) const {
  const std::map<std::string, size_t> index = index_by_name();
  std::vector<std::string> stale;
  for (const auto& parameter : model.parameters) {
    const at::Tensor flat = parameter->data.view({-1});
    for (const sharding::NamedSlice& slice : parameter->slices) {
      const at::Tensor& expected = master[index.at(slice.spec.name)];
      for (const sharding::Run& run : runs_of(slice.spec, 0, slice.spec.local_numel())) {
        const at::Tensor held = flat.narrow(0, slice.offset + run.local_begin, run.count);
        if (at::equal(held, expected.narrow(0, run.global_begin, run.count))) continue;
        stale.push_back(cat("this rank's part of ", slice.spec.name, " is not the master"));
        break;
      }
    }
  }
  return stale;
}

std::vector<std::string> GridRun::dirty_padding() const {
  std::vector<std::string> dirty;
  for (const zero::Bucket& bucket : buckets.buckets()) {
    const int64_t used = bucket.offsets.back() + bucket.parameters.back()->numel();
    const at::Tensor padding = bucket.data.slice(0, used, bucket.numel);
    if (!at::equal(padding, at::zeros_like(padding)))
      dirty.push_back(cat("padding of ", bucket.name));
  }
  return dirty;
}

std::vector<at::Tensor> GridRun::snapshot() {
  std::vector<at::Tensor> copies;
  for (const zero::Bucket& bucket : buckets.buckets()) copies.push_back(bucket.data.clone());
  for (const sharding::StatePiece& piece : zero.state_dict().pieces) {
    copies.push_back(piece.data.clone());
  }
  return copies;
}

WholeRun::WholeRun() : updates_(at::zeros({})) {
  for (const GlobalTensor& tensor : global_tensors()) {
    at::Tensor values = at::empty({tensor.numel()});
    sharding::fill_initial(values, sharding::whole_tensor(tensor.name, tensor.shape), 0,
                           tensor.numel(), tensor.init, kSeed);
    master.push_back(values);
    exp_avg.push_back(at::zeros({tensor.numel()}));
    exp_avg_sq.push_back(at::zeros({tensor.numel()}));
  }
}

float WholeRun::step(int index) {
  const config::OptimizerConfig optimizer = optimizer_config();
  const std::vector<GlobalTensor> tensors = global_tensors();
  const std::vector<at::Tensor> gradients = reference_gradient(index);
  double square = 0;
  for (const at::Tensor& g : gradients) square += g.to(at::kDouble).square().sum().item<double>();
  const auto norm = static_cast<float>(std::sqrt(square));
  const float scale =
      std::min(1.0f, (1.0f / (norm + 1e-6f)) * static_cast<float>(optimizer.max_grad_norm));
  std::vector<optim::AdamWRange> ranges;
  for (size_t i = 0; i < tensors.size(); ++i) {
    ranges.push_back(
        {.master = master[i],
         .exp_avg = exp_avg[i],
         .exp_avg_sq = exp_avg_sq[i],
         .gradient = gradients[i],
         .options = {.beta1 = optimizer.betas[0],
                     .beta2 = optimizer.betas[1],
                     .eps = optimizer.eps,
                     .weight_decay = tensors[i].decays() ? optimizer.weight_decay : 0}});
  }
  optim::adamw_update(ranges, updates_, at::scalar_tensor(scale),
                      at::ones({}, at::TensorOptions().dtype(at::kBool)), optimizer.learning_rate);
  return norm;
}

bool on_any_rank(bool value) { return session().max(value ? 1 : 0) == 1; }

}  // namespace tptrain::testing
