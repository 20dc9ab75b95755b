// The matrices of an update as they lie over the ranks, brought together and taken apart again
// (optim::MatrixExchange):
//
//   work       of this rank's shards, fp32                          by bucket
//   sent       the same, by the dp rank that gets it                all_to_all over dp
//   received   pieces of slices, by the dp rank they come from
//   slices     whole slices of this tp rank, by the tp rank that    all_to_all over tp
//              gets them
//   over_tp    slices of this rank's own matrices, by tp rank
//
// and back the same way. An axis of one rank, or dp in stage 0, where each rank holds all, is left
// out; where both are the matrices are where they lie in `work`. Values travel in what they are
// multiplied in: bf16 on CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "comm/communicator.h"
#include "optim/update_rule.h"
#include "zero/bucket_state.h"
#include "zero/matrix_shares.h"

namespace tptrain::zero {

class RankMatrices final : public optim::MatrixExchange {
 public:
  /// All must outlive it.
  RankMatrices(const ParamBuckets& buckets, const std::vector<BucketState>& states,
               const MatrixGrid& grid, comm::Communicator& tp, comm::Communicator& dp);

  /// [held] of a bucket of matrices: where a range's `work` lies.
  at::Tensor work_of(const BucketState& state) const;

  int parts() const override { return static_cast<int>(parts_.size()); }
  optim::NewtonSchulzSize largest() const override { return largest_; }
  void prepare() override;
  void gather(int part) override;
  const std::vector<optim::MatrixBatch>& batches(int part) const override;
  void scatter(int part) override;

 private:
  /// Views that are copied into one another, either way.
  struct Copies {
    std::vector<at::Tensor> here, there;
    void forth();
    void back();
  };
  struct Transfer {
    at::Tensor sent, received;  // exactly what travels
    std::vector<int64_t> counts, back_counts;
  };
  struct Part {
    std::vector<size_t> shares;
    Copies out_of_work;  // into what goes over dp, or else over tp
    Transfer over_dp;
    Copies into_slices;  // out of what came over dp
    Transfer over_tp;
    std::vector<optim::MatrixBatch> batches;
  };
  /// Where each tp rank's slice of a matrix lies.
  struct Extent {
    int64_t begin = 0, end = 0;
  };
  struct Piece {
    int64_t begin = 0;  // element of the slice
    int64_t count = 0;
  };

  void gather_extents();
  int64_t numel_on(size_t share, int tp_rank) const;
  Piece piece_of(const MatrixShare& share, int dp_rank) const;
  at::Tensor work_piece(const MatrixShare& share) const;
  bool is_here_over_dp(const MatrixShare& share) const;
  std::vector<at::Tensor> lay_out_slices(Part& part);
  void connect_dp(Part& part, const std::vector<at::Tensor>& slices);
  void connect_tp(Part& part);
  void find_batches(Part& part, const std::vector<at::Tensor>& slices);

  const ParamBuckets& buckets_;
  MatrixGrid grid_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  std::vector<MatrixShare> shares_;
  std::vector<Part> parts_;
  optim::NewtonSchulzSize largest_;
  std::unordered_map<const Bucket*, int64_t> work_begins_;
  std::unordered_map<const Bucket*, int64_t> held_begins_;
  at::Tensor work_, sent_, received_, slices_, over_tp_;
  std::vector<std::vector<Extent>> extents_;  // by share and tp rank; empty: not prepared
};

}  // namespace tptrain::zero
