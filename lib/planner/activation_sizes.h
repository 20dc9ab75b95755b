// Sizes of one rank's activations, in elements: what a model, a layout and a micro-batch come to.
#pragma once

#include <cstdint>

#include "model/decoder_config.h"
#include "planner/activations.h"

namespace tptrain::planner {

inline constexpr int64_t kFp32 = 4;
inline constexpr int64_t kInt64 = 8;

/// Between GPUs that write into each other's memory.
bool pushes_over_tp(const ActivationOptions& options);
bool pushes_over_dp(const ActivationOptions& options);

/// A token stands for a position of one sequence.
struct Sizes {
  Sizes(const model::DecoderConfig& config, const ActivationOptions& o);

  int64_t element;  // bytes of the compute dtype
  bool on_gpu;
  bool masked;
  int64_t longest;  // that attention looks at, at most
  int64_t positions, batch, tokens;
  bool sliced;
  int64_t slice_tokens;   // outside a region
  int64_t padded_tokens;  // of a gathered tensor
  int64_t hidden, head_dim;
  bool learned_positions;
  int64_t statistics;  // of a token's norm
  int64_t ffn, vocab;
  bool cut_vocab;
  int64_t heads = 0, kv_heads = 0;
  int64_t qkv = 0, unnormed = 0, context = 0, up = 0;  // columns
  /// Of what the adapters of a layer's linears make of their input: columns; 0: no adapter.
  struct Adapter {
    int64_t columns = 0;
    int64_t out = 0;  // of the widest of the linears that share an input
  };
  struct Adapters {
    Adapter qkv, o, up, down;
  };
  Adapters adapters = {};
  int64_t adapter_rank = 0;
  bool adapters_drop = false;
};

}  // namespace tptrain::planner
