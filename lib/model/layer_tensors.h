// What a layer's forward makes for its backward: declared once, for the layer, which frees what its
// backward makes again (decoder_layer.cpp), and for the planner, which counts it without a model.
// Numbers are those of one tp rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/decoder_config.h"

namespace tptrain::model {

class Adapters;
enum class Recompute;

/// In the order of forward.
enum class LayerTensor {
  input,  // the stream as it came
  attention_sum,
  attention_statistics,
  attention_input,
  qkv_columns,  // attention_input in FP8, as the weight's gradient reads it; up_ and down_ likewise
  qkv,
  unnormed,  // q and k before their norm
  qkv_down,  // what the adapters of q, k and v have made of their input; o_, up_ and down_ likewise
  context,
  logsumexp,
  o_down,
  mlp_sum,
  mlp_statistics,
  mlp_input,
  up_columns,
  up,
  up_down,
  activation,
  down_columns,
  down_down,
};

inline constexpr size_t kLayerTensors = static_cast<size_t>(LayerTensor::down_down) + 1;

/// Of a micro-batch on a rank: where its sequence lies, and how wide what the rank works on is.
struct LayerSizes {
  /// `adapters` may be null. `sliced`: cut over tp outside of attention and feed-forward.
  LayerSizes(const DecoderConfig& config, const Adapters* adapters, int tp_rank, int tp_size,
             int64_t positions, int64_t batch, bool sliced);

  bool sliced;
  int64_t tokens;
  int64_t slice_tokens;  // outside a region
  int64_t hidden, head_dim;
  int64_t statistics;  // of a token's norm
  int64_t ffn;
  int64_t heads, kv_heads;
  int64_t qkv, unnormed, context, up;  // columns
  /// Of the linears that share an input.
  struct Adapter {
    int64_t columns = 0;  // of what adapters make of the input; 0: there are none
    int64_t out = 0;      // of the widest of those linears
  };
  struct OfAdapters {
    Adapter qkv, o, up, down;
  };
  OfAdapters adapters = {};
};

/// What decides which of them stay.
struct LayerMemory {
  Recompute recompute;
  bool fp8 = false;                // the layer's linears
  bool attention_dropout = false;  // of the probabilities: nothing fused
};

/// Whether it stands between forward and backward; what does not is made again there, or was never
/// made.
bool stays(LayerTensor tensor, const LayerMemory& memory, bool sliced);

struct LayerTensorSize {
  LayerTensor tensor;
  int64_t elements;
  /// compute: in the dtype of the parameters.
  enum class Type { compute, fp32, byte };
  Type type = Type::compute;
};

/// All of them but `input`, which is as large as attention_sum (and its delta as well). 0 elements:
/// such a layer has none.
std::vector<LayerTensorSize> layer_tensors(const LayerSizes& sizes);

}  // namespace tptrain::model
