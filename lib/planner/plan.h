// A forecast of one layout without MPI, GPU or parameter memory: which rank holds which slice of
// which tensor, how much memory each rank takes, how many bytes a step moves. It declares the very
// decoder that training uses, so the table is the layout itself and not a copy of its rules.
// Activations and tp communication are counted by formulas (at MemoryPlan, Communication) that
// tests hold against a real step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/decoder_config.h"
#include "sharding/parameter.h"

namespace tptrain::planner {

struct Layout {
  int64_t tp_size = 1;
  int64_t dp_size = 1;
  int64_t zero_stage = 1;
  int64_t seq_length = 512;
  int64_t micro_batch_size = 1;  // sequences
};

/// One global tensor.
struct TensorPlan {
  std::string name;
  std::vector<int64_t> global_shape;
  sharding::Role role = sharding::Role::replicated;
  std::vector<std::vector<int64_t>> local_shapes;  // by tp rank
  int64_t global_numel() const;
};

/// Tensors of consecutive layers that differ in the layer's number alone.
struct TensorGroup {
  std::string name;   // "model.layers.{0..23}.mlp.down_proj.weight", or the tensor's own name
  TensorPlan tensor;  // the first of them
  int64_t count = 1;
};

/// Bytes on the rank that holds most. Temporary buffers (of one layer's forward or backward, of the
/// GEMM and communication libraries) come on top.
struct MemoryPlan {
  int64_t parameters = 0;  // fp32; they are the master weights
  int64_t gradients = 0;   // fp32
  int64_t optimizer =
      0;  // both moments, fp32: of all parameters (ZeRO 0) or of this dp rank's share (ZeRO 1)
  /// What forward keeps for backward, fp32, with T = seq_length * micro_batch_size tokens, H
  /// hidden_size, F intermediate_size, D head_dim, V vocab_size:
  ///   a layer  T * (4 H + 2  +  (2 heads + 2 kv_heads) D/tp + heads/tp  +  3 F/tp)
  ///            residual sums and outputs of two norms, their inverse rms; rotated q k v, attention
  ///            output, its log-sum-exp; gate, up and their product
  ///   the head T * (2 H + 1  +  V/tp + 2)   final norm as above, logits (in place: softmax, then
  ///   gradient) and the two sums of the cross entropy
  int64_t activations = 0;
  int64_t total() const { return parameters + gradients + optimizer + activations; }
};

/// Calls and bytes of one rank's collectives; bytes are of full tensors (before reduction, after
/// gathering), as comm::CommCounters counts them. An axis of one rank has none. Left out: the few
/// bytes of the gradient norm.
struct Communication {
  /// 4 a layer and 2 at the ends on [T, H] (forward: after embedding, attention, MLP; backward:
  /// before attention, MLP, head), 2 of the cross entropy on 3 T numbers.
  int64_t tp_all_reduces_per_micro_batch = 0;
  int64_t tp_all_reduce_bytes_per_micro_batch = 0;
  int64_t dp_reduce_scatter_bytes_per_step = 0;  // gradients
  int64_t dp_all_gather_bytes_per_step =
      0;  // ZeRO 0: reduced gradients; ZeRO 1: updated parameters
};

struct Plan {
  model::DecoderConfig config;
  Layout layout;
  std::vector<TensorPlan> tensors;  // every global tensor, in the decoder's order
  int64_t parameters = 0;           // of the model, each element once
  int64_t parameters_per_rank = 0;  // with what is replicated over tp; the largest tp rank
  int64_t allocated_per_rank = 0;   // elements, padded as zero::ParamBuckets does
  MemoryPlan memory;
  Communication communication;
  int64_t checkpoint_bytes = 0;  // master weights and both moments, each element once; without some
                                 // KiB of headers and manifest
};

/// Throws ConfigError: sizes that do not divide (naming tp sizes that work), a layout value out of
/// its bounds.
Plan make_plan(const model::DecoderConfig& config, const Layout& layout);

/// Folds consecutive layers whose tensors are alike.
std::vector<TensorGroup> fold_layers(const std::vector<TensorPlan>& tensors);

/// The plan as aligned tables for a terminal, several lines.
std::string to_text(const Plan& plan);

}  // namespace tptrain::planner
