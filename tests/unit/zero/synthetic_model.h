// A model without layers for the tests of buckets and ZeRO: parameters of every kind a decoder has
// (rows cut unevenly, columns cut, packed slices, copies of kv heads, replicated tensors with whole
// and with partial gradients, a tied table; odd sizes, so that every bucket is padded) and
// gradients that are a function of (step, sample, global element). Shares that tp ranks sum are
// disjoint elements, so that their sum is exact. Where a gradient counts as zero without being it,
// nan is put there first.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parameters/parameter.h"
#include "zero/zero_optimizer.h"

namespace tptrain::testing {

enum class Head { own_table, tied };

struct SyntheticModel {
  int tp_rank = 0;
  int tp_size = 1;
  bool looks_up = false;  // the embedding is read, and its gradient comes, as rows of lookup_ids()
  std::vector<std::unique_ptr<parameters::Parameter>> parameters;
  std::vector<parameters::ParameterBlock> blocks;  // embedding, 3 layers, head

  parameters::Parameter& parameter(const std::string& name);
  std::vector<parameters::Parameter*> parameters_of(int block) const;
};
/// The shards of tp rank `tp_rank`; tp_size 1, 2 or 4 (where 2 kv heads have 2 copies each).
SyntheticModel synthetic_model(int tp_rank, int tp_size, Head head = Head::own_table);

struct GlobalTensor {
  std::string name;
  std::vector<int64_t> shape;
  sharding::Init init;
  int64_t numel() const;
  bool decays() const { return shape.size() >= 2; }
};
/// Every global tensor of the model, each once.
std::vector<GlobalTensor> global_tensors(Head head = Head::own_table);

/// A step's batch is 4 samples; dp rank d of n sums samples [4d/n, 4(d+1)/n).
inline constexpr int kSamples = 4;

/// Every id of the table once, not in order.
at::Tensor lookup_ids(at::Device device = at::kCPU);

/// What a test does within a micro-batch; nothing where empty.
struct Hooks {
  std::function<void(int block)> use = {};  // the block's parameters are about to be read
  std::function<void(zero::MicroBatchPlace)> micro_batch = {};  // before each one of a step
  std::function<void(int block)> gradient = {};  // its gradients are in main_grad, not yet reduced
  std::function<void(const at::Tensor& rows)> found = {};  // of the look-up
  std::function<void(at::Tensor& rows)> rows = {};  // their gradients, before they are handed over
};
/// The observer's calls of an evaluation.
void run_forward(const SyntheticModel& model, tensor_parallel::BlockObserver& observer,
                 const Hooks& hooks = {});
/// Of a training step's micro-batch of one sample, which adds its gradients in backward.
void run_micro_batch(SyntheticModel& model, tensor_parallel::BlockObserver& observer, int step,
                     int sample, const Hooks& hooks = {});
void run_samples_of(SyntheticModel& model, tensor_parallel::BlockObserver& observer, int step,
                    zero::DpPosition dp, const Hooks& hooks = {});

/// The global gradient of a step, summed in the order of samples: 1-D, one per global tensor.
std::vector<at::Tensor> reference_gradient(int step, Head head = Head::own_table);

/// One rank's training by plain loops in double over whole tensors: no buckets, no shards.
struct Reference {
  std::vector<at::Tensor> master, exp_avg, exp_avg_sq;  // 1-D fp64, one per global tensor
  int64_t updates = 0;
  Head head = Head::own_table;
  explicit Reference(uint64_t seed, Head head = Head::own_table);
  /// Returns the norm before clipping.
  double step(int step_index, const config::OptimizerConfig& optimizer);
};

/// Largest |a - b| over the largest |b|; 0 where both are bitwise equal.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

}  // namespace tptrain::testing
