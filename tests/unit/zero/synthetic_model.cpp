// Builds the synthetic shards, their gradients and the plain reference.
#include "unit/zero/synthetic_model.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::testing {
namespace {

using parameters::NamedSlice;
using parameters::Parameter;
using parameters::Placement;
using parameters::Role;
using parameters::TpGradient;
using sharding::Init;
using sharding::ShardSpec;

constexpr int64_t kHidden = 7, kVocab = 11, kQueryRows = 12, kKvHeads = 2, kHeadRows = 3;
constexpr Init kNormal = {.kind = Init::Kind::normal, .std = 0.5};
constexpr Init kOnes = {.kind = Init::Kind::ones};

class Builder {
 public:
  Builder(int rank, int size) : rank_(rank), size_(size) {
    model_.tp_rank = rank;
    model_.tp_size = size;
  }

  void block(std::string name) { model_.blocks.push_back({.name = std::move(name)}); }
  parameters::ParameterBlock& last_block() { return model_.blocks.back(); }

  // Even or uneven cut of a dim over tp.
  NamedSlice cut(const std::string& name, std::vector<int64_t> shape, int64_t dim, Init init) {
    const int64_t size = shape[dim];
    return {.spec = sharding::slice_of(name, shape, dim, size * rank_ / size_,
                                       size * (rank_ + 1) / size_),
            .init = init};
  }
  // Rows of the kv head this rank serves; where tp exceeds the heads, the first rank that serves a
  // head owns it.
  NamedSlice kv_head(const std::string& name, std::vector<int64_t> shape, Init init) {
    const int64_t first = kKvHeads * rank_ / size_;
    const int64_t count = std::max<int64_t>(1, kKvHeads / size_);
    NamedSlice slice = {
        .spec = sharding::slice_of(name, shape, 0, first * kHeadRows, (first + count) * kHeadRows),
        .init = init};
    if (size_ <= kKvHeads) return slice;
    const int sharers = size_ / static_cast<int>(kKvHeads);
    slice.owned = rank_ % sharers == 0;
    slice.copies = {.part = rank_ / sharers, .parts = static_cast<int>(kKvHeads)};
    return slice;
  }
  NamedSlice replicated(const std::string& name, std::vector<int64_t> shape, Init init) {
    return {
        .spec = sharding::whole_tensor(name, std::move(shape)), .owned = rank_ == 0, .init = init};
  }

  void add(const std::string& name, std::vector<int64_t> shape, Placement placement,
           std::vector<NamedSlice> slices, TpGradient tp_gradient = TpGradient::whole,
           Role role = Role::replicated) {
    auto parameter = std::make_unique<Parameter>();
    parameter->name = name;
    parameter->role = role;
    parameter->shape = std::move(shape);
    parameter->placement = placement;
    parameter->tp_gradient = tp_gradient;
    int64_t offset = 0;
    for (NamedSlice& slice : slices) {
      slice.offset = offset;
      offset += slice.spec.local_numel();
    }
    if (parameter->shape[0] < 0) {
      int64_t rest = 1;
      for (size_t i = 1; i < parameter->shape.size(); ++i) rest *= parameter->shape[i];
      parameter->shape[0] = offset / rest;
    }
    parameter->slices = std::move(slices);
    model_.blocks.back().parameters.push_back(parameter.get());
    model_.parameters.push_back(std::move(parameter));
  }

  void wants_amax(const std::string& name) { model_.parameter(name).wants_amax = true; }

  SyntheticModel take() { return std::move(model_); }

 private:
  int rank_;
  int size_;
  SyntheticModel model_;
};

std::string layer_name(int layer, const char* rest) { return cat("layers.", layer, ".", rest); }

at::Tensor whole_gradient(const GlobalTensor& tensor, int step, int sample) {
  at::Tensor out = at::empty({tensor.numel()});
  sharding::fill_initial(out,
                         sharding::whole_tensor(cat("gradient of ", tensor.name), tensor.shape), 0,
                         tensor.numel(), kNormal, step * kSamples + sample);
  return out;
}

}  // namespace

// Layer 0 has partial and whole replicated parameters, partial ones first; layer 1 none; layer 2
// whole ones only.
SyntheticModel synthetic_model(int tp_rank, int tp_size, Head head) {
  Builder b(tp_rank, tp_size);
  constexpr auto kSharded = Placement::tp_sharded;
  constexpr auto kReplicated = Placement::tp_replicated;
  b.block("embedding");
  b.last_block().backward_reads_data = false;
  b.add("embed", {-1, kHidden}, kSharded, {b.cut("embed", {kVocab, kHidden}, 0, kNormal)},
        TpGradient::whole, Role::vocab_parallel);
  for (int i = 0; i < 3; ++i) {
    const auto replicated = [&](const char* rest, std::vector<int64_t> shape, Init init,
                                TpGradient gradient) {
      const std::string name = layer_name(i, rest);
      if (i == 1 || (i == 2 && gradient == TpGradient::partial)) return;
      b.add(name, shape, kReplicated, {b.replicated(name, shape, init)}, gradient);
    };
    b.block(cat("layer ", i));
    replicated("input_norm", {kHidden}, kOnes, TpGradient::partial);
    b.add(layer_name(i, "qkv"), {-1, kHidden}, kSharded,
          {b.cut(layer_name(i, "q"), {kQueryRows, kHidden}, 0, kNormal),
           b.kv_head(layer_name(i, "k"), {kKvHeads * kHeadRows, kHidden}, kNormal),
           b.kv_head(layer_name(i, "v"), {kKvHeads * kHeadRows, kHidden}, kNormal)},
          TpGradient::whole, Role::column_parallel);
    b.add(layer_name(i, "qkv_bias"), {-1}, kSharded,
          {b.cut(layer_name(i, "q_bias"), {kQueryRows}, 0, {}),
           b.kv_head(layer_name(i, "k_bias"), {kKvHeads * kHeadRows}, {}),
           b.kv_head(layer_name(i, "v_bias"), {kKvHeads * kHeadRows}, {})},
          TpGradient::whole, Role::column_parallel);
    b.add(layer_name(i, "o"), {kHidden, kQueryRows / tp_size}, kSharded,
          {b.cut(layer_name(i, "o"), {kHidden, kQueryRows}, 1, kNormal)}, TpGradient::whole,
          Role::row_parallel);
    for (const char* matrix : {"qkv", "o"}) b.wants_amax(layer_name(i, matrix));
    replicated("router", {5, kHidden}, kNormal, TpGradient::whole);
    replicated("o_bias", {kHidden}, {}, TpGradient::partial);
  }
  b.block("head");
  b.add("norm", {kHidden}, kReplicated, {b.replicated("norm", {kHidden}, kOnes)},
        TpGradient::partial);
  if (head == Head::tied) {
    b.last_block().also_uses = 0;
  } else {
    b.add("lm_head", {-1, kHidden}, kSharded, {b.cut("lm_head", {kVocab, kHidden}, 0, kNormal)},
          TpGradient::whole, Role::vocab_parallel);
  }
  return b.take();
}

Parameter& SyntheticModel::parameter(const std::string& name) {
  for (const auto& parameter : parameters) {
    if (parameter->name == name) return *parameter;
  }
  throw std::out_of_range(name);
}

std::vector<Parameter*> SyntheticModel::parameters_of(int block) const {
  std::vector<Parameter*> result = blocks[block].parameters;
  if (blocks[block].also_uses >= 0) {
    for (Parameter* parameter : blocks[blocks[block].also_uses].parameters) {
      result.push_back(parameter);
    }
  }
  return result;
}

int64_t GlobalTensor::numel() const {
  int64_t result = 1;
  for (const int64_t size : shape) result *= size;
  return result;
}

std::vector<GlobalTensor> global_tensors(Head head) {
  std::vector<GlobalTensor> tensors;
  const SyntheticModel model = synthetic_model(0, 1, head);
  for (const auto& parameter : model.parameters) {
    for (const NamedSlice& slice : parameter->slices) {
      tensors.push_back({slice.spec.name, slice.spec.global_shape, slice.init});
    }
  }
  return tensors;
}

namespace {

// Every `of`-th element from `index` on; the others are another rank's or another call's share.
void keep_share(at::Tensor& values, int index, int of) {
  if (of == 1) return;
  values.mul_(at::arange(values.numel()).remainder(of).eq(index));
}

// This rank's share of the slice's gradient, [local elements].
at::Tensor gradient_of(const SyntheticModel& model, const Parameter& parameter,
                       const NamedSlice& slice, int step, int sample, int use, int uses) {
  ShardSpec spec = slice.spec;
  spec.name = cat("gradient of ", spec.name);
  at::Tensor values = at::empty({spec.local_numel()});
  sharding::fill_initial(values, spec, 0, spec.local_numel(), kNormal, step * kSamples + sample);
  if (parameter.placement == Placement::tp_replicated &&
      parameter.tp_gradient == TpGradient::partial) {
    keep_share(values, model.tp_rank, model.tp_size);
  }
  if (slice.copies.parts > 0) {
    const int sharers = model.tp_size / slice.copies.parts;
    keep_share(values, model.tp_rank % sharers, sharers);
  }
  keep_share(values, use, uses);
  return values;
}

void add_gradient(const SyntheticModel& model, Parameter& parameter, int step, int sample, int use,
                  int uses) {
  at::Tensor flat = parameter.main_grad.view({-1});
  const bool overwrites =
      tensor_parallel::accumulation_of(parameter) == kernels::Accumulate::overwrite;
  for (const NamedSlice& slice : parameter.slices) {
    const at::Tensor values = gradient_of(model, parameter, slice, step, sample, use, uses);
    at::Tensor target = flat.narrow(0, slice.offset, values.numel());
    if (overwrites) {
      target.copy_(values);
    } else {
      target.add_(values.to(flat.device()));
    }
  }
}

// The same for the embedding, as rows of lookup_ids(). Those of other tp ranks' ids are none of
// this one's business: whatever they are.
at::Tensor gradient_rows(const SyntheticModel& model, int step, int sample, int uses) {
  const Parameter& table = *model.blocks[0].parameters[0];
  const NamedSlice& slice = table.slices[0];
  at::Tensor rows = at::full({kVocab, kHidden}, 1000.0f);
  rows.narrow(0, slice.spec.begin, table.shape[0])
      .copy_(gradient_of(model, table, slice, step, sample, /*use=*/0, uses).view({-1, kHidden}));
  return rows.index_select(0, lookup_ids());
}

void spoil_unwritten_gradients(const SyntheticModel& model, int block) {
  for (Parameter* parameter : model.parameters_of(block)) {
    if (parameter->gradient_owner != nullptr &&
        parameter->gradient_owner->is_first_write(*parameter))
      parameter->main_grad.fill_(std::nanf(""));
  }
}

void use(const SyntheticModel& model, const Hooks& hooks, int block) {
  if (!hooks.use) return;
  hooks.use(block);
  if (model.blocks[block].also_uses >= 0) hooks.use(model.blocks[block].also_uses);
}

}  // namespace

at::Tensor lookup_ids(at::Device device) {
  return at::arange(kVocab, at::TensorOptions().dtype(at::kLong).device(device))
      .mul_(4)
      .remainder_(kVocab);
}

void run_forward(const SyntheticModel& model, tensor_parallel::BlockObserver& observer,
                 const Hooks& hooks) {
  for (int b = 0; b < static_cast<int>(model.blocks.size()); ++b) {
    observer.before_forward(b);
    if (model.looks_up && b == 0) {
      const Parameter& table = *model.blocks[0].parameters[0];
      const at::Tensor rows = observer.look_up(table, lookup_ids(table.data.device()));
      if (hooks.found) hooks.found(rows);
    }
    use(model, hooks, b);
    observer.after_forward(b);
  }
}

void run_micro_batch(SyntheticModel& model, tensor_parallel::BlockObserver& observer, int step,
                     int sample, const Hooks& hooks) {
  run_forward(model, observer, hooks);
  const int last = static_cast<int>(model.blocks.size()) - 1;
  const bool tied = model.blocks[last].also_uses >= 0;
  for (int b = last; b >= 0; --b) {
    observer.before_backward(b);
    spoil_unwritten_gradients(model, b);
    if (model.blocks[b].backward_reads_data) use(model, hooks, b);
    const int uses = tied && b == 0 ? 2 : 1;
    if (model.looks_up && b == 0) {
      Parameter& table = *model.blocks[0].parameters[0];
      const at::Device device = table.main_grad.device();
      at::Tensor rows = gradient_rows(model, step, sample, uses).to(device);
      if (hooks.rows) hooks.rows(rows);
      observer.add_table_rows(table, rows, lookup_ids(device));
    } else {
      for (Parameter* parameter : model.blocks[b].parameters) {
        add_gradient(model, *parameter, step, sample, /*use=*/0, uses);
      }
    }
    if (tied && b == last) {
      for (Parameter* parameter : model.blocks[0].parameters) {
        add_gradient(model, *parameter, step, sample, /*use=*/1, 2);
      }
    }
    if (hooks.gradient) hooks.gradient(b);
    observer.after_backward(b);
  }
}

void run_samples_of(SyntheticModel& model, tensor_parallel::BlockObserver& observer, int step,
                    zero::DpPosition dp, const Hooks& hooks) {
  const int share = kSamples / dp.size;
  for (int i = 0; i < share; ++i) {
    if (hooks.micro_batch) {
      hooks.micro_batch(i + 1 == share ? zero::MicroBatchPlace::last
                                       : zero::MicroBatchPlace::before_last);
    }
    run_micro_batch(model, observer, step, dp.rank * share + i, hooks);
  }
}

std::vector<at::Tensor> reference_gradient(int step, Head head) {
  std::vector<at::Tensor> gradients;
  for (const GlobalTensor& tensor : global_tensors(head)) {
    at::Tensor sum = at::zeros({tensor.numel()});
    for (int sample = 0; sample < kSamples; ++sample) sum += whole_gradient(tensor, step, sample);
    gradients.push_back(sum);
  }
  return gradients;
}

Reference::Reference(uint64_t seed, Head head) : head(head) {
  for (const GlobalTensor& tensor : global_tensors(head)) {
    at::Tensor values = at::empty({tensor.numel()});
    sharding::fill_initial(values, sharding::whole_tensor(tensor.name, tensor.shape), 0,
                           tensor.numel(), tensor.init, seed);
    master.push_back(values.to(at::kDouble));
    exp_avg.push_back(at::zeros({tensor.numel()}, at::TensorOptions().dtype(at::kDouble)));
    exp_avg_sq.push_back(exp_avg.back().clone());
  }
}

double Reference::step(int step_index, const config::OptimizerConfig& optimizer) {
  const std::vector<at::Tensor> gradients = reference_gradient(step_index, head);
  double square = 0;
  for (const at::Tensor& g : gradients) square += g.to(at::kDouble).square().sum().item<double>();
  const double norm = std::sqrt(square);
  double scale = 1.0;
  if (optimizer.max_grad_norm > 0) scale = std::min(1.0, optimizer.max_grad_norm / (norm + 1e-6));
  const double b1 = optimizer.betas[0], b2 = optimizer.betas[1];
  ++updates;
  const std::vector<GlobalTensor> tensors = global_tensors(head);
  for (size_t i = 0; i < tensors.size(); ++i) {
    double* p = master[i].mutable_data_ptr<double>();
    double* m = exp_avg[i].mutable_data_ptr<double>();
    double* v = exp_avg_sq[i].mutable_data_ptr<double>();
    const float* gradient = gradients[i].const_data_ptr<float>();
    const double decay = tensors[i].decays() ? optimizer.weight_decay : 0.0;
    for (int64_t e = 0; e < tensors[i].numel(); ++e) {
      const double g = gradient[e] * scale;
      p[e] -= optimizer.learning_rate * decay * p[e];
      m[e] = b1 * m[e] + (1 - b1) * g;
      v[e] = b2 * v[e] + (1 - b2) * g * g;
      const double m_hat = m[e] / (1 - std::pow(b1, updates));
      const double v_hat = v[e] / (1 - std::pow(b2, updates));
      p[e] -= optimizer.learning_rate * m_hat / (std::sqrt(v_hat) + optimizer.eps);
    }
  }
  return norm;
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (at::equal(x, y)) return 0.0;
  const double largest = std::max(1e-30, y.abs().max().item<double>());
  return (x - y).abs().max().item<double>() / largest;
}

}  // namespace tptrain::testing
