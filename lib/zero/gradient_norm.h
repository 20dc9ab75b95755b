// Sums of squares that come out bitwise the same on every rank and in every ZeRO stage: fp64, in an
// order fixed by the pieces alone. Knows no bucket and no parameter; which elements count is the
// caller's affair.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "kernels/cuda/device_table.h"
#include "kernels/cuda/multi_tensor.h"

namespace tptrain::zero {

/// Sums of squares of groups of tensors, made once for tensors that stay where they are.
class SumsOfSquares {
 public:
  /// Each group: tensors that are 1-D, fp32, contiguous, on `device`.
  SumsOfSquares(std::vector<std::vector<at::Tensor>> groups, at::Device device);

  /// The sum over all elements of each group, fp64 [groups] on the device. Depends on the tensors'
  /// sizes and order, never on the number of threads or on where they lie. On CUDA: no host
  /// synchronisation, launches that are the same every time.
  at::Tensor operator()() const;

 private:
  void sum_on_cuda(at::Tensor& sums) const;

  std::vector<std::vector<at::Tensor>> groups_;
  at::Device device_;
  // Of CUDA:
  kernels::cuda::DeviceTable<const float*> tensors_;  // of all groups
  kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks_;
  kernels::cuda::DeviceTable<int64_t> group_begins_;  // among the chunks
  kernels::cuda::DeviceTable<double> partial_;        // sum of each chunk
};

/// `values` (1-D fp64) of every rank of `axis`, [ranks, n], the same bits on each of them: they
/// travel as int64 in one all_gather. Collective over `axis` where it has more than one rank.
at::Tensor gather_rows(const at::Tensor& values, comm::Communicator& axis);

/// Sum over the rows of [ranks, n] in rank order: an fp32 all-reduce would lose what fp64 kept.
at::Tensor sum_in_rank_order(const at::Tensor& rows);

}  // namespace tptrain::zero
