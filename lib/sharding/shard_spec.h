// ShardSpec: which slice of which global tensor. The vocabulary that layers, ZeRO, checkpoints,
// Hugging Face import and the gradient norm share. Global tensors have Hugging Face names and
// shapes ([out, in], never packed, padded or transposed).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tptrain::sharding {

struct ShardSpec {
  std::string name;                   // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> global_shape;  // [out, in] or [n]
  int64_t dim = -1;                   // the dimension that is cut; -1: the whole tensor
  int64_t begin = 0;                  // along dim, in elements of that dimension
  int64_t end = 0;

  bool whole() const { return dim < 0; }
  std::vector<int64_t> local_shape() const;
  int64_t local_numel() const;
  int64_t global_numel() const;
  bool operator==(const ShardSpec&) const = default;
};

/// The whole tensor.
ShardSpec whole_tensor(std::string name, std::vector<int64_t> global_shape);
/// Range [begin, end) of `dim`.
ShardSpec slice_of(std::string name, std::vector<int64_t> global_shape, int64_t dim, int64_t begin,
                   int64_t end);

/// A contiguous run of elements that is contiguous both in the slice's row-major order and in the
/// global tensor's.
struct Run {
  int64_t local_begin = 0;   // element of the slice, row-major
  int64_t global_begin = 0;  // element of the global tensor, row-major
  int64_t count = 0;
};

/// The elements [begin, end) of the slice (row-major order of the slice) as runs of the global
/// tensor, in rising order of both.
std::vector<Run> runs_of(const ShardSpec& spec, int64_t begin, int64_t end);

}  // namespace tptrain::sharding
