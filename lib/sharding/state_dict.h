// StateDict: what a rank contributes to a checkpoint, as named 1-D pieces; and TensorSource:
// anything that can give slices of named global tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sharding/shard_spec.h"

namespace tptrain::sharding {

/// A kind of state by its name, as files have it: the weights themselves, or what an update rule
/// keeps beside them ("exp_avg").
using StateKind = std::string;
inline constexpr const char* kMaster = "master";
/// Fit for a file: of a to z, 0 to 9 and _, 1 to 64 of them.
bool is_state_kind(std::string_view name);
/// The order in which files hold kinds: the weights first, the others by name.
bool kind_before(const StateKind& a, const StateKind& b);

/// How many elements of state are converted and moved at once, wherever it is saved or loaded: all
/// that either takes beside the state, 16 MiB in fp32, whatever the size of a tensor.
inline constexpr int64_t kStateChunkElements = int64_t{1} << 22;

/// The elements [begin, end), in row-major order of the tp slice `spec`, of one global tensor's
/// state.
struct StatePiece {
  StateKind kind = kMaster;
  ShardSpec spec;
  int64_t begin = 0;
  int64_t end = 0;
  bool save = true;  // this rank writes it; every global element is written by exactly one rank,
                     // but every holder loads it
  at::Tensor data;   // 1-D [end - begin], fp32 or bf16 as it is kept: a view of the live state,
                     // into which loading writes. Files hold fp32.
};

struct StateDict {
  std::vector<StatePiece> pieces;
};

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
};

/// Named global tensors that can be read slice by slice: a checkpoint, a Hugging Face directory.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// In the source's own order.
  virtual std::vector<TensorInfo> tensors() const = 0;
  /// Fills `out` (1-D fp32 on CPU, [end - begin]) with those elements of the slice (row-major order
  /// of the slice). Throws CheckpointError where the source lacks the tensor, a part of it, or has
  /// it in another shape.
  virtual void read_slice(const ShardSpec& spec, int64_t begin, int64_t end,
                          at::Tensor& out) const = 0;
};

}  // namespace tptrain::sharding
