// The borders of a block of parameters in the autograd graph, as identity Functions: they turn the
// order in which backward runs into the BlockObserver's calls. What an observer does is not known
// here; the forward calls are the decoder's.
//
//   function      forward      backward
//   enter_block   identity     observer.after_backward(block), when all of the block has run
//   leave_block   identity     observer.before_backward(block), before any of the block runs
#pragma once

#include <ATen/core/Tensor.h>

#include "tensor_parallel/block_observer.h"

namespace tptrain::model {

/// What flows from layer to layer: the residual stream and the last sublayer's output that is not
/// yet added to it. The next norm adds it, in one pass with its own work.
struct ResidualStream {
  at::Tensor residual;  // [S, B, H]
  at::Tensor delta;     // [S, B, H]; undefined after the embedding
};

/// Every tensor that enters or leaves a block goes through its boundary: a tensor that went round
/// it could have its backward run on the wrong side of the observer's call.
ResidualStream enter_block(const ResidualStream& stream, tensor_parallel::BlockObserver& observer,
                           int block);
ResidualStream leave_block(const ResidualStream& stream, tensor_parallel::BlockObserver& observer,
                           int block);
/// The same for a single tensor: the embedding's anchor, the loss.
at::Tensor enter_block(const at::Tensor& tensor, tensor_parallel::BlockObserver& observer,
                       int block);
at::Tensor leave_block(const at::Tensor& tensor, tensor_parallel::BlockObserver& observer,
                       int block);

}  // namespace tptrain::model
