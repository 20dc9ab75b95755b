// ParameterStore: the memory of parameters' values, and nothing else of theirs: no gradient, no
// state of an update rule. Training, evaluation and generation hold their weights in one; what
// differs is the layout. An adapter's matrices are parameters beside those of their linear, in its
// block: they lie in ranges of their own, as everything that trains does, and are filled from
// another source (load_parameters.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parameters/load_parameters.h"
#include "parameters/parameter.h"

namespace tptrain::parameters {

/// Parameters one behind another in flat memory, which travel together: FSDP's flat parameter.
struct FlatRange {
  std::vector<Parameter*> parameters;
  std::vector<int64_t> offsets;  // of each within the range, rising
  int64_t numel = 0;             // with the padding
  int buffer = 0;                // of the layout's
  int64_t begin = 0;             // first element in it
};

struct StoreLayout {
  std::vector<int64_t> buffers;  // elements of each; several ranges may take one in turn
  std::vector<FlatRange> ranges;

  /// Elements of all buffers: what a store of this layout allocates.
  int64_t numel() const;
};

/// For readers alone: every parameter of the blocks has a buffer of its own.
StoreLayout whole_layout(const std::vector<ParameterBlock>& blocks);

class ParameterStore {
 public:
  struct Options {
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;  // fp32 or bf16
  };
  /// Allocates the buffers (zeroed) and binds Parameter::data to them. The parameters must outlive
  /// it. Throws InternalError for another dtype, and for a range that does not fit its buffer.
  ParameterStore(StoreLayout layout, const Options& options);
  ParameterStore(const ParameterStore&) = delete;  // parameters are bound to it

  const StoreLayout& layout() const { return layout_; }
  /// [numel] of the layout's range `index`; of a buffer that several take in turn, whatever one of
  /// them has left there.
  at::Tensor range(size_t index) const;
  /// Every slice of every parameter, without padding. No range may lie in the memory of another.
  std::vector<SliceValues> values() const;

 private:
  StoreLayout layout_;
  std::vector<at::Tensor> buffers_;
};

}  // namespace tptrain::parameters
