// Builds the synthetic shards, their gradients and the plain reference.
#include "unit/zero/synthetic_model.h"

#include <cmath>

#include "base/text.h"

namespace tptrain::testing {
namespace {

using sharding::Init;
using sharding::NamedSlice;
using sharding::Parameter;
using sharding::Placement;
using sharding::ShardSpec;

constexpr int64_t kHidden = 7, kVocab = 11, kQueryRows = 12, kKvHeads = 2, kHeadRows = 3;
constexpr int kLayers = 2;
constexpr Init kNormal = {.kind = Init::Kind::normal, .std = 0.5};
constexpr Init kOnes = {.kind = Init::Kind::ones};

class Builder {
 public:
  Builder(int rank, int size) : rank_(rank), size_(size) {}

  void block(std::string name) { model_.blocks.push_back({.name = std::move(name)}); }

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
    const bool owned = size_ <= kKvHeads || rank_ % (size_ / kKvHeads) == 0;
    return {
        .spec = sharding::slice_of(name, shape, 0, first * kHeadRows, (first + count) * kHeadRows),
        .owned = owned,
        .init = init};
  }
  NamedSlice replicated(const std::string& name, std::vector<int64_t> shape, Init init) {
    return {
        .spec = sharding::whole_tensor(name, std::move(shape)), .owned = rank_ == 0, .init = init};
  }

  void add(const std::string& name, std::vector<int64_t> shape, Placement placement,
           std::vector<NamedSlice> slices) {
    auto parameter = std::make_unique<Parameter>();
    parameter->name = name;
    parameter->shape = std::move(shape);
    parameter->placement = placement;
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

SyntheticModel synthetic_model(int tp_rank, int tp_size) {
  Builder b(tp_rank, tp_size);
  constexpr auto kSharded = Placement::tp_sharded;
  constexpr auto kReplicated = Placement::tp_replicated;
  b.block("embedding");
  b.add("embed", {-1, kHidden}, kSharded, {b.cut("embed", {kVocab, kHidden}, 0, kNormal)});
  for (int i = 0; i < kLayers; ++i) {
    b.block(cat("layer ", i));
    b.add(layer_name(i, "input_norm"), {kHidden}, kReplicated,
          {b.replicated(layer_name(i, "input_norm"), {kHidden}, kOnes)});
    b.add(layer_name(i, "qkv"), {-1, kHidden}, kSharded,
          {b.cut(layer_name(i, "q"), {kQueryRows, kHidden}, 0, kNormal),
           b.kv_head(layer_name(i, "k"), {kKvHeads * kHeadRows, kHidden}, kNormal),
           b.kv_head(layer_name(i, "v"), {kKvHeads * kHeadRows, kHidden}, kNormal)});
    b.add(layer_name(i, "qkv_bias"), {-1}, kSharded,
          {b.cut(layer_name(i, "q_bias"), {kQueryRows}, 0, {}),
           b.kv_head(layer_name(i, "k_bias"), {kKvHeads * kHeadRows}, {}),
           b.kv_head(layer_name(i, "v_bias"), {kKvHeads * kHeadRows}, {})});
    b.add(layer_name(i, "o"), {kHidden, kQueryRows / tp_size}, kSharded,
          {b.cut(layer_name(i, "o"), {kHidden, kQueryRows}, 1, kNormal)});
    b.add(layer_name(i, "router"), {5, kHidden}, kReplicated,
          {b.replicated(layer_name(i, "router"), {5, kHidden}, kNormal)});
    b.add(layer_name(i, "o_bias"), {kHidden}, kReplicated,
          {b.replicated(layer_name(i, "o_bias"), {kHidden}, {})});
  }
  b.block("head");
  b.add("norm", {kHidden}, kReplicated, {b.replicated("norm", {kHidden}, kOnes)});
  b.add("lm_head", {-1, kHidden}, kSharded, {b.cut("lm_head", {kVocab, kHidden}, 0, kNormal)});
  return b.take();
}

int64_t GlobalTensor::numel() const {
  int64_t result = 1;
  for (const int64_t size : shape) result *= size;
  return result;
}

std::vector<GlobalTensor> global_tensors() {
  std::vector<GlobalTensor> tensors;
  const SyntheticModel model = synthetic_model(0, 1);
  for (const auto& parameter : model.parameters) {
    for (const NamedSlice& slice : parameter->slices) {
      tensors.push_back({slice.spec.name, slice.spec.global_shape, slice.init});
    }
  }
  return tensors;
}

void add_sample(SyntheticModel& model, int step, int sample) {
  for (const auto& parameter : model.parameters) {
    at::Tensor flat = parameter->main_grad.view({-1});
    for (const NamedSlice& slice : parameter->slices) {
      ShardSpec spec = slice.spec;
      spec.name = cat("gradient of ", spec.name);
      at::Tensor values = at::empty({spec.local_numel()});
      sharding::fill_initial(values, spec, 0, spec.local_numel(), kNormal,
                             step * kSamples + sample);
      flat.narrow(0, slice.offset, spec.local_numel()).add_(values);
    }
  }
}

void add_samples_of(SyntheticModel& model, int step, zero::DpPosition dp) {
  const int share = kSamples / dp.size;
  for (int i = 0; i < share; ++i) add_sample(model, step, dp.rank * share + i);
}

std::vector<at::Tensor> reference_gradient(int step) {
  std::vector<at::Tensor> gradients;
  for (const GlobalTensor& tensor : global_tensors()) {
    at::Tensor sum = at::zeros({tensor.numel()});
    for (int sample = 0; sample < kSamples; ++sample) sum += whole_gradient(tensor, step, sample);
    gradients.push_back(sum);
  }
  return gradients;
}

Reference::Reference(uint64_t seed) {
  for (const GlobalTensor& tensor : global_tensors()) {
    at::Tensor values = at::empty({tensor.numel()});
    sharding::fill_initial(values, sharding::whole_tensor(tensor.name, tensor.shape), 0,
                           tensor.numel(), tensor.init, seed);
    master.push_back(values.to(at::kDouble));
    exp_avg.push_back(at::zeros({tensor.numel()}, at::TensorOptions().dtype(at::kDouble)));
    exp_avg_sq.push_back(exp_avg.back().clone());
  }
}

double Reference::step(int step_index, const config::OptimizerConfig& optimizer) {
  const std::vector<at::Tensor> gradients = reference_gradient(step_index);
  double square = 0;
  for (const at::Tensor& g : gradients) square += g.to(at::kDouble).square().sum().item<double>();
  const double norm = std::sqrt(square);
  double scale = 1.0;
  if (optimizer.max_grad_norm > 0) scale = std::min(1.0, optimizer.max_grad_norm / (norm + 1e-6));
  const double b1 = optimizer.betas[0], b2 = optimizer.betas[1];
  ++updates;
  const std::vector<GlobalTensor> tensors = global_tensors();
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
