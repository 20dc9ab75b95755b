// Training of the synthetic model on a grid, and the references beside it.
#include "mpi/zero/grid_run.h"

#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "base/text.h"
#include "optim/update_rule.h"

namespace tptrain::testing {
namespace {

std::map<std::string, size_t> index_by_name(Head head) {
  std::map<std::string, size_t> index;
  for (const GlobalTensor& tensor : global_tensors(head)) index.emplace(tensor.name, index.size());
  return index;
}

}  // namespace

config::OptimizerConfig optimizer_config() {
  config::OptimizerConfig optimizer;
  optimizer.learning_rate = 1e-2;
  optimizer.weight_decay = 0.1;
  optimizer.max_grad_norm = 1.0;
  return optimizer;
}

std::string Layout::text() const { return cat("tp ", tp, " x dp ", dp); }

std::vector<Layout> layouts() {
  std::vector<Layout> result;
  for (int tp = 1; tp <= session().size(); tp *= 2) {
    result.push_back({.tp = tp, .dp = session().size() / tp});
  }
  return result;
}

std::vector<Setup> late_setups() {
  std::vector<Setup> setups;
  for (const Layout& layout : layouts()) {
    if (layout.dp == 1) continue;
    for (const int stage : {0, 1, 2, 3}) {
      for (const bool per_micro_batch : {false, true}) {
        if (stage >= 2 && !per_micro_batch) continue;
        for (const Head head : {Head::own_table, Head::tied}) {
          setups.push_back({.layout = layout,
                            .stage = stage,
                            .per_micro_batch = per_micro_batch,
                            .head = head,
                            .late = true});
        }
      }
    }
  }
  return setups;
}

int64_t buckets_between(const GridRun& grid, int first, int last) {
  int64_t count = 0;
  for (const zero::Bucket& bucket : grid.buckets.buckets())
    count += bucket.block >= first && bucket.block <= last;
  return count;
}

std::string Setup::text() const {
  return cat(layout.text(), ", stage ", stage, per_micro_batch ? ", per micro-batch" : "",
             head == Head::tied ? ", tied" : "", late ? ", late" : "",
             announces_last ? "" : ", last one unannounced", looks_up ? ", looks up" : "", ", ",
             at::toString(dtype), ", gradients ", at::toString(gradient_dtype), ", reduced in ",
             at::toString(reduce_dtype), ", moments ", word(moments), ", masters ", word(masters),
             ", ", config::word(rule));
}

namespace {

/// That which it asks for, in bf16.
bool has_its_amax(const parameters::Parameter& parameter) {
  const bool kept = parameter.wants_amax && parameter.data.scalar_type() == at::kBFloat16;
  if (!kept) return !parameter.amax.defined();
  return at::equal(parameter.amax.view(at::kFloat).cpu(),
                   parameter.data.cpu().to(at::kFloat).abs().max().view({1}));
}

zero::ZeroOptimizer::Options options_of(const Setup& setup) {
  zero::ZeroOptimizer::Options options{
      .zero_stage = setup.stage,
      .optimizer = optimizer_config(),
      .reduce_per_micro_batch = setup.per_micro_batch,
      .reduce_dtype = setup.reduce_dtype,
      .seed = kSeed,
      .lookup_rows = setup.looks_up ? zero::LookupRows::always : zero::LookupRows::automatic};
  options.optimizer.type = setup.rule;
  options.optimizer.moments_dtype = setup.moments;
  options.optimizer.master_dtype = setup.masters;
  return options;
}

}  // namespace

namespace {

// NCCL takes a second or two to start: runs of one layout share a mesh.
std::shared_ptr<comm::DeviceMesh> mesh_of(const Setup& setup) {
  static std::map<std::pair<int, int>, std::shared_ptr<comm::DeviceMesh>> gpu_meshes;
  const auto make = [&] {
    return std::make_shared<comm::DeviceMesh>(
        session(), comm::MeshShape{.dp_size = setup.layout.dp, .tp_size = setup.layout.tp},
        setup.device);
  };
  if (setup.device != comm::DeviceType::cuda) return make();
  if (gpu_meshes.empty()) before_session_ends([] { gpu_meshes.clear(); });
  std::shared_ptr<comm::DeviceMesh>& mesh = gpu_meshes[{setup.layout.dp, setup.layout.tp}];
  if (!mesh) mesh = make();
  return mesh;
}

}  // namespace

GridRun::GridRun(const Setup& setup)
    : setup(setup),
      shared_mesh(mesh_of(setup)),
      mesh(*shared_mesh),
      model(synthetic_model(mesh.tp_rank(), setup.layout.tp, setup.head)),
      buckets(model.blocks, {.rank = mesh.dp_rank(), .size = setup.layout.dp},
              {.device = mesh.device(),
               .dtype = setup.dtype,
               .zero_stage = setup.stage,
               .gradient_dtype = setup.gradient_dtype,
               .rule = &optim::update_rule(setup.rule)}),
      late_dp(mesh.dp()),
      axes(mesh.tp(), setup.late ? late_dp : mesh.dp(), setup.fault),
      zero(buckets, axes.tp(), axes.dp(), options_of(setup)) {
  axes.watch(buckets);
  model.looks_up = setup.looks_up;
  zero.state().initialise(kSeed);
}

zero::StepNumbers GridRun::step(int index, const Hooks& hooks, float loss) {
  const config::OptimizerConfig optimizer = optimizer_config();
  zero.prepare_step(optimizer.learning_rate);
  zero.begin_step();
  Hooks announcing = hooks;
  if (setup.announces_last) {
    const at::Tensor ids = setup.looks_up ? lookup_ids(mesh.device()) : at::Tensor();
    announcing.micro_batch = [&, ids](zero::MicroBatchPlace place) {
      if (hooks.micro_batch) hooks.micro_batch(place);
      zero.begin_micro_batch(place, ids);
    };
  }
  run_samples_of(model, zero, index, buckets.dp(), announcing);
  zero.finish_reduction();
  // The second says which dp rank it is from.
  at::Tensor losses = at::full({2}, loss);
  losses[1] = static_cast<float>(1 << mesh.dp_rank());
  const zero::StepNumbers numbers = zero.clip(optimizer.max_grad_norm, losses.to(mesh.device()));
  zero.update();
  return numbers;
}

std::vector<at::Tensor> GridRun::put_together(const std::vector<sharding::StatePiece>& pieces,
                                              sharding::StateKind kind,
                                              std::vector<std::string>& complaints) {
  const std::vector<GlobalTensor> tensors = global_tensors(setup.head);
  const std::map<std::string, size_t> index = index_by_name(setup.head);
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
  for (at::Tensor* sums : {&values, &counts}) mesh.world().all_reduce(*sums, comm::ReduceOp::sum);
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
  return put_together(zero.state().state_dict().pieces, kind, complaints);
}

std::vector<at::Tensor> GridRun::gradient(std::vector<std::string>& complaints) {
  return put_together(zero.state().gradient_pieces().pieces, sharding::kMaster, complaints);
}

std::vector<std::string> GridRun::stale_parameters(const std::vector<at::Tensor>& master) {
  const std::map<std::string, size_t> index = index_by_name(setup.head);
  std::vector<std::string> stale;
  run_forward(
      model, zero, {.use = [&](int block) {
        for (const parameters::Parameter* parameter : model.blocks[block].parameters) {
          if (!has_its_amax(*parameter))
            stale.push_back(cat("the largest magnitude of ", parameter->name, " is another"));
          const at::Tensor flat = parameter->data.cpu().view({-1});
          for (const parameters::NamedSlice& slice : parameter->slices) {
            const at::Tensor expected = master[index.at(slice.spec.name)].to(setup.dtype);
            for (const sharding::Run& run : runs_of(slice.spec, 0, slice.spec.local_numel())) {
              const at::Tensor held = flat.narrow(0, slice.offset + run.local_begin, run.count);
              if (at::equal(held, expected.narrow(0, run.global_begin, run.count))) continue;
              stale.push_back(cat("this rank's part of ", slice.spec.name, " is not the master"));
              break;
            }
          }
        }
        for (const zero::Bucket& bucket : buckets.buckets()) {
          if (bucket.block != block) continue;
          const int64_t used = bucket.offsets.back() + bucket.parameters.back()->numel();
          const at::Tensor padding = bucket.data.slice(0, used, bucket.numel).cpu();
          if (!at::equal(padding, at::zeros_like(padding)))
            stale.push_back(cat("padding of ", bucket.name, " is not zero"));
        }
      }});
  return stale;
}

std::vector<std::string> GridRun::drifted_copies() {
  const auto own = zero.state().hash_parameters();
  std::vector<std::string> complaints;
  std::map<std::pair<std::string, int64_t>, uint64_t> seen;
  for (const auto& slice : own) {
    const std::string words(reinterpret_cast<const char*>(&slice.begin), sizeof slice.begin);
    const std::string hash(reinterpret_cast<const char*>(&slice.hash), sizeof slice.hash);
    for (const std::string& other : session().all_gather(words + hash)) {
      int64_t begin = 0;
      uint64_t value = 0;
      std::memcpy(&begin, other.data(), sizeof begin);
      std::memcpy(&value, other.data() + sizeof begin, sizeof value);
      const auto [at, first] = seen.emplace(std::pair(slice.name, begin), value);
      if (!first && at->second != value) complaints.push_back(cat("copies of ", slice.name));
    }
  }
  return complaints;
}

std::vector<at::Tensor> GridRun::snapshot() {
  std::vector<at::Tensor> copies;
  for (const sharding::StatePiece& piece : zero.state().state_dict().pieces) {
    copies.push_back(piece.data.clone().cpu());
  }
  run_forward(model, zero, {.use = [&](int block) {
                for (const zero::Bucket& bucket : buckets.buckets()) {
                  if (bucket.block == block) copies.push_back(bucket.data.clone().cpu());
                }
              }});
  copies.push_back(at::full({1}, static_cast<double>(zero.state().updates_done())));
  return copies;
}

WholeRun::WholeRun(Head head) : head_(head), updates_(at::zeros({})) {
  for (const GlobalTensor& tensor : global_tensors(head)) {
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
  const std::vector<GlobalTensor> tensors = global_tensors(head_);
  const std::vector<at::Tensor> gradients = reference_gradient(index, head_);
  double square = 0;
  for (const at::Tensor& g : gradients) square += g.to(at::kDouble).square().sum().item<double>();
  const auto norm = static_cast<float>(std::sqrt(square));
  const float scale =
      std::min(1.0f, (1.0f / (norm + 1e-6f)) * static_cast<float>(optimizer.max_grad_norm));
  std::vector<optim::UpdateRange> ranges;
  for (size_t i = 0; i < tensors.size(); ++i) {
    optim::UpdateRange range{.master = master[i],
                             .slots = {exp_avg[i], exp_avg_sq[i]},
                             .gradient = gradients[i],
                             .weights = {}};
    range.options = {.beta1 = optimizer.betas[0],
                     .beta2 = optimizer.betas[1],
                     .eps = optimizer.eps,
                     .weight_decay = tensors[i].decays() ? optimizer.weight_decay : 0};
    ranges.push_back(std::move(range));
  }
  optim::update_rule(config::OptimizerType::adamw)
      .update_of(std::move(ranges), {})
      ->run({.learning_rate = at::full({}, optimizer.learning_rate, at::kDouble),
             .gradient_scale = at::scalar_tensor(scale),
             .finite = at::ones({}, at::TensorOptions().dtype(at::kBool)),
             .updates = updates_});
  return norm;
}

bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return true;
}

bool on_any_rank(bool value) { return session().max(value ? 1 : 0) == 1; }

}  // namespace tptrain::testing
