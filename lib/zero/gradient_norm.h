// Sums of squares that come out bitwise the same on every rank and in every ZeRO stage: fp64, in an
// order fixed by the pieces alone. Knows no bucket and no parameter; which elements count is the
// caller's affair.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/communicator.h"

namespace tptrain::zero {

/// Sum of squares of all elements of `views` (1-D, fp32, contiguous, on `device`) as an fp64 tensor
/// of 1 element there. Does not block the host. The result depends on the views' sizes and order,
/// never on the number of threads.
at::Tensor sum_of_squares(const std::vector<at::Tensor>& views, at::Device device);

/// `values` (1-D fp64) of every rank of `axis`, [ranks, n], the same bits on each of them: they
/// travel as int64 in one all_gather. Collective over `axis` where it has more than one rank.
at::Tensor gather_rows(const at::Tensor& values, comm::Communicator& axis);

/// Sum over the rows of [ranks, n] in rank order: an fp32 all-reduce would lose what fp64 kept.
at::Tensor sum_in_rank_order(const at::Tensor& rows);

}  // namespace tptrain::zero
