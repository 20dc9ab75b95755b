// The two ends of a language model with the vocabulary cut over the tp axis: rank r holds the rows
// [r * V/tp, (r + 1) * V/tp) of the table. Full logits [T, V] never exist on one rank in training.
//
//   function                        forward                             backward
//   vocab_parallel_embedding        look-up of own rows, all_reduce     add to own rows
//   vocab_parallel_logits           own columns of the logits           all_reduce of dX
//   vocab_parallel_cross_entropy    all_reduce max [T], sum [2, T]      none
//
// Source of the cross entropy: Shoeybi et al., "Megatron-LM", 2019, section 3.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "sharding/parameter.h"

namespace tptrain::tensor_parallel {

struct VocabTableOptions {
  std::string name;  // "model.embed_tokens" or "lm_head"; the tensor adds ".weight"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  double init_std = 0.0;
};

/// This rank's rows of a table [V, H], for an embedding, a head, or both when they are tied. Throws
/// InternalError where V does not divide by tp.size().
std::unique_ptr<sharding::Parameter> vocab_parallel_table(const VocabTableOptions& options,
                                                          const comm::Communicator& tp);

/// Rows of the table for ids [S, B] int64 -> [S, B, H], whole on every rank. Every id must lie in
/// [0, V): the data decides that, not this function. `anchor` is any tensor that requires a
/// gradient: the table is no autograd leaf and ids have no gradient, so the graph hangs on it; its
/// own gradient stays undefined. Collective over tp.
at::Tensor vocab_parallel_embedding(const at::Tensor& ids, sharding::Parameter& table,
                                    const at::Tensor& anchor, comm::Communicator& tp);

/// x [.., H], whole -> [.., V/tp]: the logits of this rank's rows of the table. Backward is
/// collective over tp.
at::Tensor vocab_parallel_logits(const at::Tensor& x, sharding::Parameter& table,
                                 comm::Communicator& tp);

/// The sum over counted targets of -log softmax(logits)[target], times inverse_target_tokens:
/// fp32 scalar, the same on every rank. logits [T, V/tp] are consumed: forward and backward work in
/// their memory, so nothing else may read them and backward runs once. targets [T] int64, -100 is
/// ignored; inverse_target_tokens: fp32 scalar tensor. Collective over tp.
at::Tensor vocab_parallel_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                        const at::Tensor& inverse_target_tokens,
                                        comm::Communicator& tp);

}  // namespace tptrain::tensor_parallel
