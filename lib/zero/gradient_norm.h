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
#include "zero/cuda/passes.h"

namespace tptrain::zero {

/// Sums of squares of groups of tensors, made once for tensors that stay where they are.
class SumsOfSquares {
 public:
  using Groups = std::vector<std::vector<at::Tensor>>;
  /// A tensor whose squares somebody else adds up: fp64, by pieces, as they are when the sum is
  /// asked for; flag as below.
  struct Found {
    at::Tensor of_pieces;
    at::Tensor flag;
  };
  /// Each group: tensors that are 1-D, fp32 or bf16, contiguous, on `device`. flags: of each of
  /// them one fp32 element on the device, or an undefined tensor; or none of any. written_rows:
  /// likewise, uint8 [rows], 0 where a row holds zeros alone, which CUDA then does not read. found:
  /// on CUDA alone, of each group, or none.
  SumsOfSquares(Groups groups, at::Device device, Groups flags = {}, Groups written_rows = {},
                std::vector<std::vector<Found>> found = {});

  /// The sum over all elements of each group, fp64 [groups] on the device. Depends on the tensors'
  /// sizes and order, never on the number of threads or on where they lie. The flag of a tensor
  /// that holds inf or nan becomes infinite, as nothing else makes its sum; others stay. On CUDA:
  /// no host synchronisation, launches that are the same every time.
  at::Tensor operator()() const;

 private:
  void make_found_tables();
  void sum_on_cuda(at::Tensor& sums) const;

  Groups groups_;
  Groups flags_;
  std::vector<std::vector<Found>> found_;
  at::Device device_;
  // Of CUDA:
  kernels::cuda::DeviceTable<cuda::Gradient> tensors_;  // of all groups
  kernels::cuda::DeviceTable<float*> flag_pointers_;    // their flags; null: none
  kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks_;
  kernels::cuda::DeviceTable<int64_t> group_begins_;  // among the chunks
  kernels::cuda::DeviceTable<double> partial_;        // sum of each chunk
  kernels::cuda::DeviceTable<cuda::FoundSquares> found_rows_;
  kernels::cuda::DeviceTable<int64_t> found_begins_;
  kernels::cuda::DeviceTable<double> found_sums_;
};

/// `values` (1-D fp64) of every rank of `axis`, [ranks, n], the same bits on each of them: they
/// travel as int64 in one all_gather. Collective over `axis` where it has more than one rank.
at::Tensor gather_rows(const at::Tensor& values, comm::Communicator& axis);

/// Sum over the rows of [ranks, n] in rank order: an fp32 all-reduce would lose what fp64 kept.
at::Tensor sum_in_rank_order(const at::Tensor& rows);

}  // namespace tptrain::zero
