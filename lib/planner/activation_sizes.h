// Sizes of one rank's activations, in elements: what a model, a layout and a micro-batch come to.
#pragma once

#include <array>
#include <cstdint>

#include "model/decoder_config.h"
#include "model/layer_tensors.h"
#include "planner/activations.h"

namespace tptrain::planner {

inline constexpr int64_t kFp32 = 4;
inline constexpr int64_t kInt64 = 8;

/// Between GPUs that write into each other's memory.
bool pushes_over_tp(const ActivationOptions& options);
bool pushes_over_dp(const ActivationOptions& options);

/// A token stands for a position of one sequence.
struct Sizes : model::LayerSizes {
  Sizes(const model::DecoderConfig& config, const ActivationOptions& o);

  int64_t bytes(model::LayerTensor tensor) const { return bytes_[static_cast<size_t>(tensor)]; }

  int64_t element;  // bytes of the compute dtype
  bool on_gpu;
  bool masked;
  int64_t longest;  // that attention looks at, at most
  int64_t positions, batch;
  int64_t padded_tokens;  // of a gathered tensor
  bool learned_positions;
  int64_t vocab;
  bool cut_vocab;
  int64_t adapter_rank;  // 0: no adapter
  bool adapters_drop;

 private:
  std::array<int64_t, model::kLayerTensors> bytes_ = {};
};

}  // namespace tptrain::planner
