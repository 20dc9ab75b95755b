// A forecast of one layout without MPI, GPU or parameter memory: which rank holds which slice of
// which tensor, how much memory each rank takes, how many bytes a step moves, for all ZeRO stages
// side by side. It declares the very decoder that training uses and lays it out as zero does, so
// the table is the layout itself and not a copy of its rules. Tests hold memory and communication
// against real steps.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "config/run_config.h"
#include "model/decoder.h"
#include "model/decoder_config.h"
#include "optim/unit.h"
#include "parameters/parameter.h"
#include "planner/activations.h"
#include "planner/communication.h"

namespace tptrain::planner {

inline constexpr int kZeroStages = 4;
/// What CUDA's context, cuBLAS' and cuDNN's workspaces and NCCL's buffers take on a GPU beside the
/// tensors that a plan counts: an allowance, not measured.
inline constexpr int64_t kLibraryBytes = int64_t{3} << 29;

struct Layout {
  int64_t tp_size = 1;
  int64_t dp_size = 1;
  int64_t zero_stage = 1;  // the one that is marked
  int64_t seq_length = 512;
  int64_t micro_batch_size = 1;  // sequences
  int64_t micro_batches = 1;     // of a step
  bool document_mask = false;
  bool reduce_per_micro_batch = false;  // of stages 0 and 1; 2 and 3 always do
  model::TrainingOptions training = {.sequence_parallel = tensor_parallel::SequenceParallel::on};
  at::ScalarType dtype = at::kFloat;           // of weights and activations: fp32 or bf16
  at::ScalarType gradient_dtype = at::kFloat;  // of the layers' matrices
  at::ScalarType reduce_dtype = at::kFloat;    // of gradients on their way over dp
  at::ScalarType master_dtype = at::kFloat;
  at::ScalarType moments_dtype = at::kFloat;
  config::OptimizerType update_rule = config::OptimizerType::adamw;
  int64_t newton_schulz_steps = 5;  // of a rule by matrices
  comm::AxisCopies copies = {};     // between GPUs: taken for possible where they are automatic
  int64_t cpu_threads = 1;
  bool async_saves = true;  // checkpoint.async
  Device device = Device::cpu;
};

/// One global tensor.
struct TensorPlan {
  std::string name;
  std::vector<int64_t> global_shape;
  parameters::Role role = parameters::Role::replicated;
  bool trains = true;
  optim::Unit unit = optim::Unit::element;         // of its update
  std::vector<std::vector<int64_t>> local_shapes;  // by tp rank
  int64_t global_numel() const;
};

/// Tensors of consecutive layers that differ in the layer's number alone.
struct TensorGroup {
  std::string name;   // "model.layers.{0..23}.mlp.down_proj.weight", or the tensor's own name
  TensorPlan tensor;  // the first of them
  int64_t count = 1;
};

/// Bytes of one rank. What libraries and the process itself take comes on top.
struct MemoryPlan {
  int64_t parameters = 0;   // in the compute dtype, that stay between the steps
  int64_t gradients = 0;    // fp32, likewise
  int64_t masters = 0;      // where they are not the parameters themselves
  int64_t moments = 0;      // what the update rule keeps beside them
  int64_t buffers = 0;      // slots that blocks share, staging, gradients on their way as bf16,
                            // pushes between GPUs
  int64_t activations = 0;  // at their peak (activations.h)
  int64_t saving = 0;  // of a save or load, when there are no activations: a chunk on its way from
                       // or to state in bf16. On GPUs 0, the host converts.
  int64_t total() const {
    return parameters + gradients + masters + moments + buffers + std::max(activations, saving);
  }
};

/// What one tp rank (every dp rank of it alike) takes and moves.
struct RankPlan {
  int64_t parameters = 0;  // with what is replicated over tp
  int64_t allocated = 0;   // elements, padded as zero::ParamBuckets does
  int64_t save_host_bytes = 0;
  int64_t push_buffers = 0;  // bytes, within memory's buffers: not of the caching allocator
  std::array<MemoryPlan, kZeroStages> memory;
  Communication communication;
};

struct Plan {
  model::DecoderConfig config;
  Layout layout;
  std::vector<TensorPlan> tensors;  // every global tensor, in the decoder's order
  int64_t parameters = 0;           // of the model, each element once
  int64_t trained_parameters = 0;   // those that are not frozen
  int64_t parameters_per_rank = 0;  // as RankPlan's, of the largest tp rank
  int64_t allocated_per_rank = 0;
  std::array<MemoryPlan, kZeroStages> memory;  // by stage, of the rank that takes most
  Communication communication;                 // of the rank that moves most
  double update_share = 0;                     // see below
  int64_t checkpoint_bytes = 0;  // master weights and the rule's slots, each element once; without
                                 // some KiB of headers and manifest
  int64_t state_bytes = 0;       // the same as it is kept, in the layout's ZeRO stage
  int64_t save_host_bytes = 0;   // host memory of a save beside the state, of the rank that takes
                                 // most
};

/// Throws ConfigError: a tp size that does not work (naming those that do) or cuts within a block
/// of a base in NF4, a layout value out of its bounds.
Plan make_plan(const model::DecoderConfig& config, const Layout& layout);
/// The largest micro-batch of `layout` with which a rank takes at most `bytes` in the layout's ZeRO
/// stage: 0 where one sequence is too much already. Throws as make_plan.
int64_t largest_micro_batch(const model::DecoderConfig& config, const Layout& layout,
                            int64_t bytes);
/// What of parallel.recompute makes the least again and still fits, as above, with the layout's own
/// micro-batch; nothing where the layout's choice does not fit either.
std::optional<model::Recompute> least_recompute(const model::DecoderConfig& config,
                                                const Layout& layout, int64_t bytes);
/// The part of it that is tp rank `tp_rank`'s.
RankPlan plan_of_rank(const model::DecoderConfig& config, const Layout& layout, int tp_rank);

/// Of a rule that makes matrices orthogonal: its arithmetic, of all ranks, over that of a step's
/// forward and backward. Else 0.
double update_share(const model::DecoderConfig& config, const Layout& layout);

/// Plan::checkpoint_bytes alone.
int64_t checkpoint_bytes(const model::DecoderConfig& config, const Layout& layout);

/// Folds consecutive layers whose tensors are alike.
std::vector<TensorGroup> fold_layers(const std::vector<TensorPlan>& tensors);

/// The plan as aligned tables for a terminal, several lines.
std::string to_text(const Plan& plan);

}  // namespace tptrain::planner
