// Head and loss of a micro-batch, forward and backward, by chunks of tokens: the logits of one
// chunk exist at a time, and the gradient of the head is made on the way. Per chunk: logits, their
// statistics (reduced over tp), the gradient in their memory, and its two products. Nothing is made
// twice. What a chunk more costs is one more pass over the table's fp32 gradient, and smaller
// products: nothing that pairs of steps show of GPT-2 124M (65,536 tokens), 0.3 % of Qwen2.5-0.5B
// (16,384), on an H200.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "comm/communicator.h"
#include "parameters/parameter.h"

namespace tptrain::model {

/// Tokens of a chunk: a quarter of the micro-batch, but no fewer than products like.
inline int64_t head_chunk_of(int64_t tokens) {
  constexpr int64_t kFewest = 8192;
  return std::max(kFewest, (tokens + 3) / 4);
}

class LossHead {
 public:
  /// chunk_tokens: 0: head_chunk_of(tokens). `table` [V/tp, H] and `tp` must outlive it. On CUDA
  /// takes the memory of a chunk's logits: to be made before the layers' activations come to lie
  /// where it would fit (tensor_parallel::memory_for_logits).
  LossHead(parameters::Parameter& table, comm::Communicator& tp, int64_t tokens,
           int64_t chunk_tokens);

  /// x [T, H], targets [T] int64 (-100: not counted) -> fp32 [2], the same on every tp rank: the
  /// sums of cross entropy and of logsumexp^2. Collective over tp.
  at::Tensor loss(const at::Tensor& x, const at::Tensor& targets);

  struct Result {
    at::Tensor sums;  // as loss()
    at::Tensor grad;  // [T, H]: this rank's terms of the gradient of x, to be summed over tp
  };
  /// Of scale * (cross entropy + z_loss * logsumexp^2), scale an fp32 scalar; adds that of the
  /// table to its main_grad. Collective over tp.
  Result loss_and_gradient(const at::Tensor& x, const at::Tensor& targets, const at::Tensor& scale,
                           double z_loss);

 private:
  template <typename Chunk>
  void for_each_chunk(int64_t tokens, const Chunk& chunk) const;
  at::Tensor logits_of(const at::Tensor& x);

  parameters::Parameter& table_;
  comm::Communicator& tp_;
  int64_t chunk_tokens_;
  at::Tensor memory_;  // undefined on the CPU
};

}  // namespace tptrain::model
