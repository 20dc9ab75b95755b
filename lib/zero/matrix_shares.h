// Which rank makes which matrix orthogonal, by arithmetic alone: a rule that must see whole
// matrices (optim::Unit::matrix) does not change how state is cut over dp and tp, by elements; the
// matrices are brought together for the update (rank_matrices.h). What is cut by whole matrices is
// the work: those of a few blocks at a time over all ranks that hold them, balanced by their cost.
//
// Why not whole matrices in the shards: a layer has seven, of unlike sizes. Over eight ranks one of
// its shards would be empty and others several times the mean, memory with them, reductions would
// have parts of unlike sizes, and tp would still want its exchange. Here shards, reductions, norms
// and checkpoints are those of any other rule; on top, a step sends a rank's shard of the matrices
// once there and once back.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/newton_schulz.h"
#include "zero/param_buckets.h"
#include "zero/state_layout.h"

namespace tptrain::zero {

/// The ranks that share the matrices' work out among them.
struct MatrixGrid {
  int tp_size = 1;
  int dp_size = 1;  // 1 where every dp rank holds all of the state and does all work (stage 0)
  int ranks() const { return tp_size * dp_size; }
};

MatrixGrid matrix_grid(const StateLayout& layout, int tp_size, int dp_size);

/// This tp rank's slice of one matrix, and whose the matrix is.
struct MatrixShare {
  const Bucket* bucket = nullptr;
  const parameters::NamedSlice* slice = nullptr;
  int64_t bucket_begin = 0;  // the slice's first element
  int part = 0;              // of the update
  int batch = 0;             // of matrices that have one owner: those with this number, which rises
  int tp_owner = 0;
  int dp_owner = 0;

  int64_t rows() const { return slice->spec.global_shape[0]; }
  int64_t columns() const { return slice->spec.global_shape[1]; }
  int64_t numel() const { return slice->spec.local_numel(); }
};

/// Blocks whose matrices are shared out together: as many as there are ranks, so that each has
/// about one block's work and memory for it; 1 where no bucket is of matrices.
int blocks_per_part(const std::vector<Bucket>& buckets, const MatrixGrid& grid);

/// All matrices, in the order of the buckets; the owners are the same on every rank.
std::vector<MatrixShare> share_matrices(const std::vector<Bucket>& buckets, const MatrixGrid& grid);

/// Elements of what RankMatrices and the rule allocate for it, the same on every dp rank.
struct MatrixMemory {
  int64_t work = 0;  // fp32
  // As they travel, NewtonSchulz::dtype_on(device):
  int64_t sent = 0;      // over dp
  int64_t received = 0;  // over dp
  int64_t slices = 0;    // of the matrices of this rank and its tp peers
  int64_t over_tp = 0;   // of this rank's matrices, from all tp peers
  optim::NewtonSchulzSize largest = {};
  int64_t bytes(at::Device device) const;
};
MatrixMemory matrix_memory(const std::vector<Bucket>& buckets, const MatrixGrid& grid);

/// Calls and elements of all_to_all in an update, as CommCounters count them: there and back.
struct MatrixTraffic {
  int64_t dp_calls = 0, dp_elements = 0;
  int64_t tp_calls = 0, tp_elements = 0;  // of the dp ranks whose tp peers have most to send
};
MatrixTraffic matrix_traffic(const std::vector<Bucket>& buckets, const MatrixGrid& grid);

}  // namespace tptrain::zero
