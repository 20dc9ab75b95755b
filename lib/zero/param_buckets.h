// Flat memory for training: per block one bucket of tp-sharded and one of tp-replicated
// parameters, one more of those that the update rule must see as whole matrices, one of those whose
// gradients are bf16, and two more of
// those that do not train, where there are some; each padded to a multiple of dp (a table alone: of
// dp rows; FP8: of dp * kFp8Shard). A rank's shard of a bucket is the dp_rank-th of dp equal
// ranges. The parameters' values lie in a ParameterStore of this layout; here is the memory of
// gradients beside it. Parameter::main_grad are views of that.
//
// Memory by ZeRO stage. Stages 0 and 1: every bucket has its own data and main_grad. Stage 2: the
// gradients of one block at a time live in a slot that blocks share. Stage 3: so do the gathered
// parameters. Slots: one for the ends (embedding and head take turns; a tied head works on the
// embedding's table, which then keeps its slot and the head gets its own), and two that the layers
// take in turn, so that the next block can be gathered, and the last one reduced, meanwhile. They
// are allocated once and their addresses never change.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "optim/unit.h"
#include "parameters/parameter_store.h"

namespace tptrain::optim {
class UpdateRule;
}

namespace tptrain::zero {

struct Bucket {
  std::string name;  // "layer 3, tp_sharded"
  int block = 0;
  parameters::Placement placement = parameters::Placement::tp_sharded;
  bool trains = true;                       // all of its parameters do, or none
  optim::Unit unit = optim::Unit::element;  // of all its parameters, where they train
  /// A tp_replicated bucket holds the parameters with whole gradients first, then those with
  /// partial ones.
  std::vector<parameters::Parameter*> parameters;
  std::vector<int64_t> offsets;  // of each parameter in the flat buffers; dense
  int64_t numel = 0;             // padded, see lay_out()
  int64_t partial_begin = 0;     // first element with a partial gradient; numel: there is none
  bool fp8 = false;  // matrices that FP8 products alone read: in stage 3 they are gathered as FP8
  at::ScalarType gradient_dtype = at::kFloat;  // of main_grad
  int64_t memory_begin = 0;    // of data: in the memory of its block's buckets of its placement
  int64_t gradient_begin = 0;  // of main_grad: likewise, of those of its gradient_dtype
  at::Tensor data;             // [numel] compute dtype; own memory or part of a slot: the store's
  at::Tensor main_grad;        // [numel]; likewise; undefined where they do not train
};

/// Whether matrices that FP8 products alone read have buckets of their own.
enum class Fp8Matrices { with_others, apart };

struct DpPosition {
  int rank = 0;
  int size = 1;
};

/// A named slice's part of the range [begin, end) of a bucket: what checkpoints, initialisation and
/// the norm are told.
struct BucketPiece {
  const parameters::NamedSlice* slice = nullptr;
  parameters::Parameter* parameter = nullptr;
  int64_t bucket_begin = 0;  // element of the bucket
  int64_t slice_begin = 0;   // element of the slice, row-major
  int64_t count = 0;
};
std::vector<BucketPiece> pieces_of(const Bucket& bucket, int64_t begin, int64_t end);

/// What one block sums over tp before its gradients are reduced: one contiguous range of memory, so
/// that it is one collective. Undefined where there is nothing.
struct TpRegion {
  at::Tensor partial;  // the tail of the replicated bucket's main_grad, [partial_begin, numel)
  /// Directly behind it, for each slice with copies `parts` places of its size, slices in the order
  /// of the tp_sharded bucket.
  at::Tensor staging;
  at::Tensor whole;  // both
};

/// Shards of FP8 buckets are multiples of it: pieces of matrices, which kernels cast as rows of so
/// many elements.
inline constexpr int64_t kFp8Shard = 128;

/// The slot of a block: the memory it shares with others (stages 2 and 3).
int slot_of(const std::vector<parameters::ParameterBlock>& blocks, int block);

class ParamBuckets {
 public:
  struct Options {
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;  // of data: fp32 or bf16
    int zero_stage = 0;
    /// Of main_grad of the layers' matrices, which a product writes whole, once in the time that it
    /// holds: fp32, or bf16, and then they have buckets of their own. All else is fp32.
    at::ScalarType gradient_dtype = at::kFloat;
    /// What it must see as whole matrices has buckets of its own; null: nothing is.
    const optim::UpdateRule* rule = nullptr;
    /// apart: in every stage, so that all have the same pieces. Not those of a rule by matrices.
    Fp8Matrices fp8_matrices = Fp8Matrices::with_others;
  };
  /// Lays the parameters of `blocks` out and allocates (zeroed). Blocks and parameters must outlive
  /// it. Throws InternalError for blocks that break the contract of parameters/parameter.h.
  ParamBuckets(const std::vector<parameters::ParameterBlock>& blocks, DpPosition dp,
               const Options& options);
  ParamBuckets(const ParamBuckets&) = delete;

  std::vector<Bucket>& buckets() { return buckets_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  const std::vector<parameters::ParameterBlock>& blocks() const { return *blocks_; }
  DpPosition dp() const { return dp_; }
  const Options& options() const { return options_; }
  const TpRegion& tp_region(int block) const { return tp_regions_.at(block); }
  /// "model.layers.0.self_attn.qkv_proj.weight"; `index` counts the parameters in block order.
  const std::string& parameter_name(int64_t index) const;
  /// [begin, end) of a bucket that dp rank `rank` owns.
  std::pair<int64_t, int64_t> shard_range(const Bucket& bucket, int rank) const;

 private:
  const std::vector<parameters::ParameterBlock>* blocks_;
  DpPosition dp_;
  Options options_;
  std::vector<Bucket> buckets_;
  parameters::ParameterStore store_;
  std::vector<TpRegion> tp_regions_;  // of each block
};

}  // namespace tptrain::zero
