// Communication at the borders of a tensor-parallel region, as autograd Functions.
// Each function is a forward and the backward that belongs to it; both run on the tp axis only. No
// layer knowledge here: layers are in parallel_linear.h and vocab_parallel.h.
//
//   function             forward      backward     where
//   copy_to_region       identity     all_reduce   before a column-parallel linear
//   reduce_from_region   all_reduce   identity     after a row-parallel linear or a vocab look-up
//
// Source: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using
// Model Parallelism", 2019, section 3 (f and g).
#pragma once

#include <ATen/core/Tensor.h>

#include "comm/communicator.h"

namespace tptrain::tensor_parallel {

/// Marks where a tensor that every tp rank holds whole enters the region: returns `replicated`. In
/// backward each rank brings the gradient of its own slice of the work; their sum over tp is the
/// gradient. It is summed in place, so let one consumer take the result (a packed linear, not
/// three). Collective in backward: every rank of `tp` in the same order. Does not block the host on
/// CUDA.
at::Tensor copy_to_region(const at::Tensor& replicated, comm::Communicator& tp);

/// Sums the partial results of all tp ranks, in place: `partial` is the result and must be fresh
/// (no view, not saved for backward by what made it). The gradient of each summand is the gradient
/// itself. Collective in forward: every rank of `tp` in the same order, equal shapes. Does not
/// block on CUDA.
at::Tensor reduce_from_region(const at::Tensor& partial, comm::Communicator& tp);

}  // namespace tptrain::tensor_parallel
