// The one decoder: embedding, layers of attention and SwiGLU with RMSNorm, head; written with
// tensor_parallel layers. Families map onto it by config alone. Holds the parameters' declarations;
// their memory is bound by zero::ParamBuckets. Activations are sequence-first: [S, B, H].
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "model/kv_cache.h"
#include "sharding/parameter.h"
#include "tensor_parallel/block_observer.h"

namespace tptrain::model {

class Decoder {
 public:
  /// Declares local shards for tp.rank() of tp.size(); allocates no parameter memory. The sizes
  /// must divide (check_tp_size). `tp` must outlive it.
  Decoder(const DecoderConfig& config, comm::Communicator& tp);
  ~Decoder();
  Decoder(const Decoder&) = delete;

  const DecoderConfig& config() const;
  /// Blocks in forward order: 0 embedding, 1 .. L layers, L + 1 head (final norm, logits, loss). A
  /// tied table stands in block 0 alone; the head reads it between before_forward(L + 1) and
  /// after_forward(L + 1), and adds to its gradient between before_backward(L + 1) and
  /// after_backward(L + 1), without another call for block 0: whoever frees block 0 in between must
  /// know that. Its gradient is complete at after_backward(0), the last call of all.
  const std::vector<sharding::ParameterBlock>& blocks() const;
  /// All parameters in block order.
  std::vector<sharding::Parameter*> parameters() const;

  /// ids, targets: [S, B] int64, target -100 is ignored; inverse_target_tokens: fp32 scalar tensor,
  /// 1 / targets of the global batch. Returns the fp32 scalar sum of this micro-batch's token
  /// losses times inverse_target_tokens, the same on every tp rank, attached to the graph
  /// (.backward() accumulates into main_grad). The observer's calls happen on both ways. Collective
  /// over tp.
  at::Tensor loss(const at::Tensor& ids, const at::Tensor& targets,
                  const at::Tensor& inverse_target_tokens,
                  tensor_parallel::BlockObserver& observer);

  /// Without gradients: logits of the last position, [B, V] fp32 gathered over tp, for ids [S, B]
  /// that continue what `cache` holds. Collective over tp.
  at::Tensor next_token_logits(const at::Tensor& ids, KvCache& cache);

  std::unique_ptr<KvCache> make_cache(int64_t batch, int64_t max_length) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::model
