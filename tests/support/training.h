// Whole small trainings in process, for parity tests: a fixed global batch a step, any layout, and
// everything a comparison needs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/control.h"
#include "config/run_config.h"
#include "model/decoder_config.h"
#include "support/reduction_faults.h"
#include "train/engine.h"

namespace tptrain::testing {

/// Two layers, and sizes that do not divide: vocabulary 1003, ffn 172.
model::DecoderConfig odd_llama();  // untied; 14 heads, 2 kv heads; biases of q, k, v and o
model::DecoderConfig odd_qwen2();  // tied; 6 heads, 1 kv head; biases of q, k, v

struct TrainingOptions {
  int64_t steps = 20;
  double learning_rate = 1e-3;
  double max_grad_norm = 0.5;  // clipping is active in every step
  int64_t accumulation = 1;
  int zero_stage = 1;
  bool reduce_per_micro_batch = false;
  model::TrainingOptions model = {};
  at::ScalarType dtype = at::kFloat;
  at::ScalarType gradient_dtype = at::kFloat;
  at::ScalarType reduce_dtype = at::kFloat;
  config::Dtype moments_dtype = config::Dtype::fp32;
  config::Dtype master_dtype = config::Dtype::fp32;
  config::OptimizerType update_rule = config::OptimizerType::adamw;
  std::vector<config::ParameterGroup> groups = {};
  data::DocumentMask document_mask = data::DocumentMask::off;  // of parity_documents below
  train::CudaGraphs cuda_graphs = train::CudaGraphs::on;
  zero::LookupRows lookup_rows = zero::LookupRows::automatic;
  ReductionFault reduction_fault = ReductionFault::none;
  /// A fault: every micro-batch, and every rank, counts as if it had as many targets as the rank's
  /// first.
  bool weight_micro_batches_equally = false;
};

using GlobalTensors = std::map<std::string, std::vector<float>>;  // by global name, row-major

struct TrainingRun {
  std::vector<float> losses;
  std::vector<float> norms;
  GlobalTensors first_gradients;  // of step 1, before clipping
  GlobalTensors last_gradients;   // of the last step
  GlobalTensors masters;          // after the last step
};

/// The axes of a run, as the tests give them (a real mesh, or single ranks for the reference).
struct Axes {
  comm::ControlGroup& world;
  comm::Communicator& tp;
  comm::Communicator& dp;
  at::Device device = at::kCPU;
};

/// Trains from seed 7 on the same 12 sequences of global batch a step whatever the layout: unequal
/// -100 masks, the last three sequences fully masked (with 4 dp ranks: all a rank has). Collective
/// over the axes.
TrainingRun train(const model::DecoderConfig& config, const Axes& axes,
                  const TrainingOptions& options);
/// The same on one rank without communication, ZeRO, accumulation and recompute: the reference.
TrainingRun train_reference(const model::DecoderConfig& config, const TrainingOptions& options);

/// Host batch of (step, sequence index) and the global batch size of the runs above.
inline constexpr uint64_t kSeed = 7;
inline constexpr int64_t kGlobalBatch = 12;
inline constexpr int64_t kSequenceLength = 22;  // tp 4 does not divide it
data::HostBatch parity_batch(int64_t step, int64_t first_sequence, int64_t count,
                             int64_t vocab_size);

/// Tells the documents of these sequences apart: of lengths that change with step and sequence, 2
/// to 22 of them a sequence, whose last tokens then have no target.
void mask_parity_documents(data::HostBatch& batch);

/// Pieces of all ranks put together to whole tensors. Collective.
GlobalTensors assemble(comm::ControlGroup& world, const sharding::StateDict& state,
                       sharding::StateKind kind);

struct Deviation {
  double loss = 0;            // worst relative
  double norm = 0;            // worst relative
  double first_gradient = 0;  // worst tensor: |difference| / largest |reference| of that tensor
  double last_gradient = 0;
  std::string first_gradient_name = {};
  std::string last_gradient_name = {};
};
Deviation compare(const TrainingRun& run, const TrainingRun& reference);
/// The numerics contract: loss within 2e-6, norm within 1e-5, each tensor's gradient within 1e-5 of
/// its largest element at step 1 and 1e-4 at step 20.
inline const Deviation kNumericsContract{
    .loss = 2e-6, .norm = 1e-5, .first_gradient = 1e-5, .last_gradient = 1e-4};
bool within(const Deviation& deviation, const Deviation& most);
/// "LOSS | NORM | GRADIENT, STEP 1 | LAST |", as the tables of docs/parity.md have them.
std::string row_of(const Deviation& deviation);
inline bool within_contract(const Deviation& deviation) {
  return within(deviation, kNumericsContract);
}

/// Losses, norms and master weights are the same, bit for bit.
bool bitwise_equal(const TrainingRun& a, const TrainingRun& b);

}  // namespace tptrain::testing
