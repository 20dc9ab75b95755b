// A model without layers for the tests of buckets and ZeRO: parameters of every kind a decoder has
// (rows cut unevenly, columns cut, packed slices, copies of kv heads, replicated vectors; odd
// sizes, so that every bucket is padded) and gradients that are a function of (step, sample, global
// element).
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "sharding/parameter.h"
#include "zero/zero_optimizer.h"

namespace tptrain::testing {

struct SyntheticModel {
  std::vector<std::unique_ptr<sharding::Parameter>> parameters;
  std::vector<sharding::ParameterBlock> blocks;
};
/// The shards of tp rank `tp_rank`; tp_size 1, 2 or 4.
SyntheticModel synthetic_model(int tp_rank, int tp_size);

struct GlobalTensor {
  std::string name;
  std::vector<int64_t> shape;
  sharding::Init init;
  int64_t numel() const;
  bool decays() const { return shape.size() >= 2; }
};
/// Every global tensor of the model, each once.
std::vector<GlobalTensor> global_tensors();

/// A step's batch is 4 samples; dp rank d of n sums samples [4d/n, 4(d+1)/n).
inline constexpr int kSamples = 4;
/// Adds the gradients of one sample to main_grad of every parameter.
void add_sample(SyntheticModel& model, int step, int sample);
void add_samples_of(SyntheticModel& model, int step, zero::DpPosition dp);

/// The global gradient of a step, summed in the order of samples: 1-D, one per global tensor.
std::vector<at::Tensor> reference_gradient(int step);

/// One rank's training by plain loops in double over whole tensors: no buckets, no shards.
struct Reference {
  std::vector<at::Tensor> master, exp_avg, exp_avg_sq;  // 1-D fp64, one per global tensor
  int64_t updates = 0;
  explicit Reference(uint64_t seed);
  /// Returns the norm before clipping.
  double step(int step_index, const config::OptimizerConfig& optimizer);
};

/// Largest |a - b| over the largest |b|; 0 where both are bitwise equal.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

}  // namespace tptrain::testing
