// A decoder with memory of its own, without ZeRO, and small shapes for it: what the checks of
// decoders share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/block_observer.h"

namespace tptrain::testing {

class NoObserver : public tensor_parallel::BlockObserver {
 public:
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

model::DecoderConfig small_decoder();
/// 14 query heads on 2 kv heads (tp 4: copies of kv heads, 4, 3, 4, 3 query heads), and sizes that
/// divide by nothing.
model::DecoderConfig odd_decoder();
/// LayerNorm, learned positions, GELU, biases everywhere; 6 heads, on tp 4 as 2, 2, 1, 1.
model::DecoderConfig gpt2_like();
/// Norms of q and k per head, frequencies scaled as llama3's: with these factors and a head_dim of
/// 8, one is as it was, one stretched and one in between.
model::DecoderConfig qwen3_like();

/// Two sequences; the first target of one and the last of the other are not counted.
model::TokenBatch make_batch(const std::string& name, const model::DecoderConfig& config,
                             int64_t length = 7);
at::Tensor inverse_of(double tokens);

/// The shortest way to run a decoder; losses are sums over targets by 12.
struct BoundDecoder {
  BoundDecoder(const model::DecoderConfig& config, comm::Communicator& tp_axis,
               const model::TrainingOptions& options, const Tensors& weights);
  at::Tensor step(const model::TokenBatch& batch);
  at::Tensor evaluate(const model::TokenBatch& batch);
  std::vector<at::Tensor> gradients() const;
  void zero_gradients();

  comm::Communicator& tp;
  model::Decoder decoder;
  NoObserver observer;
};

bool bitwise_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b);

}  // namespace tptrain::testing
