// The two ends of a language model with the vocabulary cut over the tp axis: each rank holds some
// rows of the table [V, H]. Full logits [T, V] never exist on one rank in training.
//
//   function                        forward                             backward
//   vocab_parallel_embedding        look-up of own rows, reduce         gather, add to own rows
//   vocab_parallel_cross_entropy    all_reduce max [T], sum [2, T]      none
//
// Source of the cross entropy:
// Shoeybi et al., "Megatron-LM", 2019, section 3.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "parameters/parameter.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::tensor_parallel {

struct VocabTableOptions {
  std::string name;  // "model.embed_tokens" or "lm_head"; the tensor adds ".weight"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  double init_std = 0.0;
};

/// This rank's rows of a table [V, H] (share_of), for an embedding, a head, or both when they are
/// tied.
std::unique_ptr<parameters::Parameter> vocab_parallel_table(const VocabTableOptions& options,
                                                            const comm::Communicator& tp);

/// Rows of the table for ids ([T], any shape), [T, H]: zeros for ids of other slices.
at::Tensor table_rows(const parameters::Parameter& table, const at::Tensor& ids);
/// Adds row t to the main_grad of row ids[t] of the table, ids of other slices left out.
void add_table_rows(parameters::Parameter& table, at::Tensor rows, const at::Tensor& ids);

/// Rows of the table for ids [S, B] int64 -> [rows, B, H] of the region's outside. Every id must
/// lie in [0, V): the data decides that, not this function. Collective over tp.
at::Tensor vocab_parallel_embedding(const at::Tensor& ids, const parameters::Parameter& table,
                                    const SequenceRegion& region);
/// The gradient of the output, [rows, B, H] -> that of every token's row, [T, H], for
/// add_table_rows. Collective over tp where the region is sliced.
at::Tensor vocab_parallel_embedding_backward(const at::Tensor& grad_output,
                                             const SequenceRegion& region);

/// Memory for the logits of so many tokens on CUDA; nothing elsewhere. Logits are the largest
/// tensor of a micro-batch, or of a chunk of its tokens. The caching allocator cuts large blocks
/// up: to take it ahead of the layers' activations keeps a block whole that they would otherwise
/// come to lie in, and a second one of this size from being reserved.
at::Tensor memory_for_logits(int64_t tokens, const parameters::Parameter& table);
/// The head's product: x [T, H] -> logits [T, V/tp] = x table^T, on CUDA in `memory`. There the
/// table's rows of padding are multiplied as well, so that every size of the product is a multiple
/// of 64 (GPT-2's 50,257 columns would take six times as long as 50,304): rows of logits lie as far
/// apart.
at::Tensor vocab_parallel_logits(const at::Tensor& x, const parameters::Parameter& table,
                                 at::Tensor memory);
/// Adds the gradient of the table to its main_grad; writes the partial gradient of x, to be summed
/// over tp, into grad_x [T, H]. grad_logits lies as vocab_parallel_logits made it, zeros between
/// the rows.
void vocab_parallel_logits_backward(const at::Tensor& grad_logits, const at::Tensor& x,
                                    parameters::Parameter& table, at::Tensor& grad_x);

/// Softmax cross entropy of logits [T, V/tp] (fp32; bf16 on CUDA too), which are consumed: forward
/// and backward work in their memory.
class VocabParallelCrossEntropy {
 public:
  /// targets [T] int64, -100 is ignored; `table` says which columns these are. Collective over tp.
  VocabParallelCrossEntropy(at::Tensor logits, at::Tensor targets,
                            const parameters::Parameter& table, comm::Communicator& tp);
  /// fp32 [2], the same on every rank: the sums over the counted targets of cross entropy and of
  /// logsumexp^2.
  at::Tensor sums() const;
  /// The gradient by the logits of scale * (cross entropy + z_loss * logsumexp^2), in their memory:
  /// once.
  at::Tensor backward(const at::Tensor& scale, double z_loss) &&;

 private:
  at::Tensor exp_;      // [T, V/tp]
  at::Tensor targets_;  // [T]
  at::Tensor row_max_;  // [T]
  at::Tensor sums_;     // [2, T]
  int64_t vocab_begin_ = 0;
};

struct CrossEntropyGradient {
  at::Tensor sums;         // as VocabParallelCrossEntropy::sums()
  at::Tensor grad_logits;  // in the memory of the logits
};
/// Forward and backward of VocabParallelCrossEntropy at once, the same bits: with one tp rank there
/// is nothing to wait for in between, and a GPU reads the logits once. Collective over tp.
CrossEntropyGradient vocab_parallel_cross_entropy_gradient(at::Tensor logits, at::Tensor targets,
                                                           const parameters::Parameter& table,
                                                           comm::Communicator& tp,
                                                           const at::Tensor& scale, double z_loss);

}  // namespace tptrain::tensor_parallel
