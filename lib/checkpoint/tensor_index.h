// Which piece of a checkpoint holds which elements of a global tensor. Built once from a manifest's
// pieces; checks that they tile every tensor.
//
// The rule of the format that keeps this simple: the pieces of one tensor and kind are cut along
// one dimension (or none) into disjoint slices that cover it, and each slice into disjoint ranges
// that cover it. So coverage is two sorted sweeps, for any number of rows, and a lookup two binary
// searches.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

class TensorIndex {
 public:
  /// Throws Refused where an element of a tensor is in no piece or in two, where pieces disagree on
  /// a shape, or where a tensor lacks the kind that every one has (its values, "master").
  /// O(n log n) in the pieces. Keeps no reference to them.
  explicit TensorIndex(const std::vector<ManifestPiece>& pieces);

  /// By name, rising.
  const std::vector<sharding::TensorInfo>& tensors() const { return tensors_; }
  /// nullptr where there is none of this name.
  const std::vector<int64_t>* shape_of(const std::string& name) const;
  bool has(std::string_view kind, const std::string& name) const;
  /// Of a tensor that is here, by name.
  std::vector<std::string> kinds_of(const std::string& name) const;

  /// A stretch of the wanted elements that lies in one piece.
  struct Stretch {
    int64_t piece = 0;   // index into the manifest's pieces
    int64_t source = 0;  // first element within the piece
    int64_t target = 0;  // first element, from `begin` on, of what was asked for
    int64_t count = 0;
  };
  /// Calls `visit` for stretches that together are the elements [begin, end) of the slice. The
  /// tensor must be here, with spec's shape.
  void find(std::string_view kind, const sharding::ShardSpec& spec, int64_t begin, int64_t end,
            const std::function<void(const Stretch&)>& visit) const;

 private:
  struct Range {
    int64_t begin = 0;
    int64_t end = 0;
    int64_t piece = 0;
  };
  struct Slice {
    int64_t begin = 0;  // along dim
    int64_t end = 0;
    std::vector<Range> ranges;
  };
  struct Cut {
    int64_t dim = 0;     // whole tensors count as one slice of dimension 0
    int64_t extent = 1;  // of dim
    int64_t inner = 1;   // elements per step along dim
    std::vector<Slice> slices;
  };
  struct Entry {
    std::vector<int64_t> shape;
    std::map<std::string, Cut, std::less<>> cuts;  // by kind
  };

  void add(const ManifestPiece& piece, int64_t number);
  void check(const std::string& name, const Entry& entry) const;

  std::vector<sharding::TensorInfo> tensors_;
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace tptrain::checkpoint
