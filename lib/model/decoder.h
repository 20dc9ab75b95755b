// The one decoder: embedding, layers of attention and feed-forward with a norm before each, head;
// written with tensor_parallel layers. Families map onto it by config alone. Holds the parameters'
// declarations; their memory is a ParameterStore's. Activations are sequence-first: [S, B,
// H].
//
// Forward and backward are written out, block by block, without an autograd graph: what is kept
// between them is known to the byte, a block's backward can first make again what was not kept
// (recompute), and the observer's calls stand where they happen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/run_config.h"
#include "kernels/kernels.h"
#include "model/decoder_config.h"
#include "model/kv_cache.h"
#include "parameters/parameter.h"
#include "tensor_parallel/block_observer.h"
#include "tensor_parallel/fp8_observer.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::model {

/// What a layer does not keep for its backward, but makes again there; the numbers are bitwise the
/// same.
enum class Recompute {
  none,
  selective,  // norm outputs and the activation: no GEMM again
  full,       // all but the layer's input: the layer's forward again
};

/// The layers' linears in 8 bits (tensor_parallel/fp8_linear.h), but for those of some layers at
/// either end.
struct Fp8Layers {
  bool on = false;
  bool counts_casts = false;  // of a training: what they lose
  /// Ranks of tp share scales and gather bytes (fp8_linear.h); over_dp() asks the same of dp.
  bool all_gather = false;
  int64_t first_in_bf16 = 0;
  int64_t last_in_bf16 = 0;
  /// Casts of weights stay between the micro-batches of a step: 2 bytes an element.
  bool keep_weights = true;
  tensor_parallel::Fp8Observer* observer = nullptr;  // of all casts; outlives the decoder

  bool takes(int64_t layer, int64_t layers) const {
    return on && layer >= first_in_bf16 && layer < layers - last_in_bf16;
  }
  /// Whether matrices are gathered as FP8 over so many ranks, where they are gathered for use.
  bool over_dp(int64_t dp_size) const { return on && all_gather && dp_size > 1; }
};

struct TrainingOptions {
  tensor_parallel::SequenceParallel sequence_parallel = tensor_parallel::SequenceParallel::off;
  Recompute recompute = Recompute::none;
  double attention_dropout = 0.0;  // of the attention probabilities
  double residual_dropout = 0.0;   // of the embedding and of each sublayer's output
  double z_loss = 0.0;
  uint64_t seed = 0;  // of dropout
  Fp8Layers fp8 = {};
  /// The head's logits exist for so many tokens at a time; 0: loss_head.h's choice.
  int64_t head_chunk_tokens = 0;
  /// Globs of global tensor names, as of model.freeze: what they fit does not train. {"*"}: a model
  /// that is only read.
  std::vector<std::string> freeze = {};
  /// Of the layers' linears: then these train, what they save whole, and nothing else.
  std::optional<config::AdapterConfig> adapter = {};
};

/// Documents that do not see each other.
struct PackedDocuments {
  kernels::Documents attention;
  at::Tensor positions;  // [T] int64: of each token in its document
};

/// One micro-batch of one dp rank.
struct TokenBatch {
  at::Tensor ids;      // [S, B] int64
  at::Tensor targets;  // [S, B] int64, -100 not counted
  /// Of a micro-batch that is one sequence, [T, 1]: what its tokens see, and where they stand.
  /// Without: every sequence sees itself. Not with dropout.
  std::optional<PackedDocuments> documents = {};
  /// Dropout's numbers depend on these alone: the step, and the number of sequence b = 0 within the
  /// global batch.
  int64_t step = 0;
  int64_t first_sample = 0;
};

class Decoder {
 public:
  /// Declares local shards for tp.rank() of tp.size(); allocates no parameter memory. tp must be
  /// one of the sizes that work (check_tp_size), options.freeze and adapter ones that
  /// check_freeze() and check_adapter() find no problem with, or {"*"}. `tp` must outlive it.
  Decoder(const DecoderConfig& config, comm::Communicator& tp, const TrainingOptions& options = {});
  ~Decoder();
  Decoder(const Decoder&) = delete;

  const DecoderConfig& config() const;
  /// Blocks in forward order: 0 embedding, 1 .. L layers, L + 1 head (final norm, logits, loss). A
  /// tied table stands in block 0 alone, and the head's also_uses says so.
  const std::vector<parameters::ParameterBlock>& blocks() const;
  /// Of blocks(): backward ends with it, and forward keeps nothing before it. The number of blocks:
  /// nothing trains.
  int first_training_block() const;
  /// All parameters in block order.
  std::vector<parameters::Parameter*> parameters() const;
  /// The weights of the layers' linears where options.adapter->base_dtype packs them: they stand in
  /// no block, and whoever trains the decoder keeps them (tensor_parallel/nf4_base.h).
  const std::vector<parameters::Parameter*>& packed_parameters() const;

  /// Parameters' values may have changed: to be called before the first micro-batch that sees them.
  void weights_changed();
  /// Of the layers that were to run in FP8: names of the linears whose sizes do not allow it.
  std::vector<std::string> linears_left_in_bf16() const;
  /// What casts of weights take where they are kept.
  int64_t fp8_weight_bytes() const;

  /// Forward and backward of one micro-batch: gradients are added to main_grad. Returns fp32 [2],
  /// the same on every tp rank: the sums over its targets of cross entropy and of
  /// logsumexp(logits)^2, each times inverse_target_tokens (fp32 scalar tensor, 1 / targets of the
  /// global batch). Minimised is the first plus z_loss times the second. Collective over tp.
  at::Tensor forward_backward(const TokenBatch& batch, const at::Tensor& inverse_target_tokens,
                              tensor_parallel::BlockObserver& observer);
  /// The same losses without gradients and without dropout. Collective over tp.
  at::Tensor evaluate(const TokenBatch& batch, const at::Tensor& inverse_target_tokens,
                      tensor_parallel::BlockObserver& observer);

  /// Logits of the last position, [B, V] fp32 gathered over tp, for ids [S, B] that continue what
  /// `cache` holds. Collective over tp.
  at::Tensor next_token_logits(const at::Tensor& ids, KvCache& cache);

  std::unique_ptr<KvCache> make_cache(int64_t batch, int64_t max_length) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::model
