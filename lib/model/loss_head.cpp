#include "model/loss_head.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::model {

using tensor_parallel::VocabParallelCrossEntropy;

LossHead::LossHead(parameters::Parameter& table, comm::Communicator& tp, int64_t tokens,
                   int64_t chunk_tokens)
    : table_(table),
      tp_(tp),
      chunk_tokens_(std::min(tokens, chunk_tokens > 0 ? chunk_tokens : head_chunk_of(tokens))),
      memory_(tensor_parallel::memory_for_logits(chunk_tokens_, table)) {}

template <typename Chunk>
void LossHead::for_each_chunk(int64_t tokens, const Chunk& chunk) const {
  for (int64_t first = 0; first < tokens; first += chunk_tokens_)
    chunk(first, std::min(chunk_tokens_, tokens - first));
}

at::Tensor LossHead::logits_of(const at::Tensor& x) {
  at::Tensor logits = tensor_parallel::vocab_parallel_logits(
      x, table_, memory_.defined() ? memory_.narrow(0, 0, x.size(0)) : memory_);  // [T', V/tp]
  // The CPU loops keep exponentials in the logits' memory, which bf16 would round once more; the
  // CUDA kernels make them again.
  return logits.is_cpu() ? logits.to(at::kFloat) : logits;
}

at::Tensor LossHead::loss(const at::Tensor& x, const at::Tensor& targets) {
  at::Tensor sums;
  for_each_chunk(x.size(0), [&](int64_t first, int64_t count) {
    const VocabParallelCrossEntropy entropy(logits_of(x.narrow(0, first, count)),
                                            targets.narrow(0, first, count), table_, tp_);
    sums = sums.defined() ? sums.add_(entropy.sums()) : entropy.sums();
  });
  return sums;
}

LossHead::Result LossHead::loss_and_gradient(const at::Tensor& x, const at::Tensor& targets,
                                             const at::Tensor& scale, double z_loss) {
  Result result = {.sums = {}, .grad = at::empty_like(x)};
  for_each_chunk(x.size(0), [&](int64_t first, int64_t count) {
    const at::Tensor rows = x.narrow(0, first, count);
    tensor_parallel::CrossEntropyGradient found =
        tensor_parallel::vocab_parallel_cross_entropy_gradient(
            logits_of(rows), targets.narrow(0, first, count), table_, tp_, scale, z_loss);
    result.sums = result.sums.defined() ? result.sums.add_(found.sums) : found.sums;
    // What the CPU has widened goes before the products.
    const at::Tensor grad_logits =
        std::exchange(found.grad_logits, {}).to(x.scalar_type());  // [T', V/tp]
    at::Tensor grad = result.grad.narrow(0, first, count);
    tensor_parallel::vocab_parallel_logits_backward(grad_logits, rows, table_, grad);
  });
  return result;
}

}  // namespace tptrain::model
