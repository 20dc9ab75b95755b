// One pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x)), forward and backward, with
// what is kept in between. Each residual addition is left to the norm that follows it.
//
// tp collectives with sequence parallelism: forward 2 all-gathers (norm outputs) and 2
// reduce-scatters (sublayer outputs); backward 4 (gradients of the outputs, norm outputs again) and
// 2. Without: 2 all-reduces each way. Full recompute runs the forward again but for its last GEMM
// and reduction.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/adapter.h"
#include "model/attention.h"
#include "model/decoder.h"
#include "model/dropout.h"
#include "model/layer_tensors.h"
#include "model/mlp.h"
#include "model/norm.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::model {

/// What all layers of one micro-batch's forward and backward share.
struct LayerContext {
  const tensor_parallel::SequenceRegion& region;
  const kernels::RotaryTable& rotary;  // a row for each row of ids
  const DropoutNumbers& dropout;
  Recompute recompute = Recompute::none;
  const PackedDocuments* documents = nullptr;

  const kernels::Documents* attention_documents() const {
    return documents != nullptr ? &documents->attention : nullptr;
  }
};

class DecoderLayer {
 public:
  struct Options {
    int64_t index = 0;
    std::string name;  // "model.layers.0"
    parameters::TpGradient replicated_gradient = parameters::TpGradient::whole;
    const tensor_parallel::Fp8Settings* fp8 = nullptr;  // null: linears in the compute dtype
    const Adapters* adapters = nullptr;                 // null: none
  };
  DecoderLayer(const DecoderConfig& config, const Options& options, const comm::Communicator& tp);

  /// What forward keeps for backward; what is undefined is made again there.
  /// Declared with their sizes in layer_tensors.h.
  struct Kept {
    ResidualStream input;  // full recompute: this and nothing else
    // The attention sublayer.
    at::Tensor attention_sum;         // [rows, B, H]
    at::Tensor attention_statistics;  // [rows * B] or twice that
    at::Tensor attention_input;       // [rows, B, H]; none
    Attention::Qkv qkv;               // [S, B, (heads + 2 kv_heads)/tp * D], and q, k unnormed
    Attention::Kept attention;        // [S, B, heads/tp * D] and log-sum-exp
    // The feed-forward sublayer.
    at::Tensor mlp_sum;         // [rows, B, H]
    at::Tensor mlp_statistics;  // [rows * B] or twice that
    at::Tensor mlp_input;       // [rows, B, H]; none
    at::Tensor up;              // [S, B, 2 F/tp] of SwiGLU, [S, B, F/tp] of GELU
    at::Tensor activation;      // [S, B, F/tp]; none
    // What linears have made of their inputs. In FP8, with their columns, what stands above is not
    // kept.
    tensor_parallel::LinearInput qkv_input, o_input, up_input, down_input;

    /// One of those that layer_tensors.h declares.
    struct Declared {
      LayerTensor what;
      at::Tensor* tensor;
      const tensor_parallel::LinearInput* of_linear = nullptr;  // whose input it is, in either form
    };
    /// All but the input.
    std::vector<Declared> tensors();
  };

  /// `kept` may be null (evaluation). Collective over tp.
  ResidualStream forward(ResidualStream stream, const LayerContext& context, Kept* kept) const;
  /// What stands before the layer: where all of it is frozen, the gradient of the layer's input is
  /// nobody's, and backward ends with the lowest sublayer that trains.
  enum class Below { trains, frozen };
  /// The gradient of the outgoing stream's sum -> that of the incoming one's (or undefined, with
  /// Below::frozen); adds all weights' gradients. Collective over tp.
  ResidualGradient backward(ResidualGradient grad, Kept kept, const LayerContext& context,
                            Below below);

  /// For generation: the S tokens that follow what `cache` holds, all rows on every rank.
  ResidualStream forward_cached(const ResidualStream& stream,
                                const tensor_parallel::SequenceRegion& region,
                                const kernels::RotaryTable& rotary, KvCache& cache) const;

  /// In order of use.
  std::vector<parameters::Parameter*> parameters();
  /// Adds the names of the linears that do not run in FP8.
  void add_linears_in_bf16(std::vector<std::string>& names) const;

 private:
  /// Forward as far as the last product, keeping all of it.
  /// What the activations are for: where no backward follows, nothing is cast for it.
  enum class Use { forward, backward };
  Kept activations(ResidualStream stream, const LayerContext& context, Use use) const;
  /// The gradient of a sublayer's input: unused, it is not made.
  enum class InputGradient { wanted, unused };
  ResidualGradient mlp_backward(const ResidualGradient& grad, Kept& kept,
                                const LayerContext& context, InputGradient input_gradient);
  ResidualGradient attention_backward(const ResidualGradient& grad, Kept& kept,
                                      const LayerContext& context, InputGradient input_gradient);

  int64_t index_;
  bool in_fp8_;
  std::vector<tensor_parallel::Fp8Linear*> fp8_linears_;
  NormLayer input_norm_;
  Attention attention_;
  NormLayer post_attention_norm_;
  Mlp mlp_;
};

}  // namespace tptrain::model
