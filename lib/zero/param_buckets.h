// Flat memory for parameters: per block one bucket of tp-sharded and one of tp-replicated
// parameters, each padded to a multiple of dp. A rank's shard of a bucket is the dp_rank-th of dp
// equal ranges. Binds Parameter::data and main_grad as views. ZeRO 0-3 differ only in what they do
// with buckets.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sharding/parameter.h"

namespace tptrain::zero {

struct Bucket {
  std::string name;  // "layer 3, tp_sharded"
  int block = 0;
  sharding::Placement placement = sharding::Placement::tp_sharded;
  std::vector<sharding::Parameter*> parameters;
  std::vector<int64_t> offsets;  // of each parameter in the flat buffers; the head of each on a
                                 // multiple of 64 elements is not needed, they are dense
  int64_t numel = 0;             // padded to a multiple of dp
  at::Tensor data;               // [numel] fp32 (compute dtype later)
  at::Tensor main_grad;          // [numel] fp32
};

struct DpPosition {
  int rank = 0;
  int size = 1;
};

/// A named slice's part of the range [begin, end) of a bucket: what checkpoints, initialisation and
/// the norm are told.
struct BucketPiece {
  const sharding::NamedSlice* slice = nullptr;
  sharding::Parameter* parameter = nullptr;
  int64_t bucket_begin = 0;  // element of the bucket
  int64_t slice_begin = 0;   // element of the slice, row-major
  int64_t count = 0;
};
std::vector<BucketPiece> pieces_of(const Bucket& bucket, int64_t begin, int64_t end);

class ParamBuckets {
 public:
  /// Lays the parameters of `blocks` out and allocates data and main_grad (zeroed) on `device`. The
  /// parameters must outlive it.
  ParamBuckets(const std::vector<sharding::ParameterBlock>& blocks, DpPosition dp,
               at::Device device);
  ParamBuckets(const ParamBuckets&) = delete;

  std::vector<Bucket>& buckets() { return buckets_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  DpPosition dp() const { return dp_; }
  /// [begin, end) of a bucket that dp rank `rank` owns.
  std::pair<int64_t, int64_t> shard_range(const Bucket& bucket, int rank) const;

 private:
  std::vector<Bucket> buckets_;
  DpPosition dp_;
};

}  // namespace tptrain::zero
