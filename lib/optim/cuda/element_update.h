// Element rules on CUDA memory: one pass over all ranges of an update, predicated on a flag in
// device memory. Plain pointers, no torch; what the tables hold is cuda_update.h's affair. In a
// build without CUDA (absent.cpp) nothing of it is called.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/multi_tensor.h"
#include "optim/element_rules.h"

namespace tptrain::optim::cuda {

using kernels::cuda::Chunk;
using kernels::cuda::Element;
using kernels::cuda::Stream;

/// The random bits of a bf16 master (../stochastic_rounding.h). Element i of the slice is element
/// i / local_block * global_block + global_begin + i % local_block of the tensor.
struct Rounding {
  uint32_t key[2] = {};
  int64_t begin = 0;  // of the range's first element, in the slice
  int64_t local_block = 1;
  int64_t global_block = 1;
  int64_t global_begin = 0;
};

/// A row of the table of ranges.
struct Range {
  void* master = nullptr;
  void* slots[kMostSlots] = {};
  const void* gradient = nullptr;
  void* weights = nullptr;   // bf16, or null
  uint32_t* amax = nullptr;  // UpdateRange's, or null
  int64_t options = 0;       // its row in the table of options
  kernels::cuda::WrittenRows of_gradient;
  Rounding rounding;
};

/// Elements a chunk has at most: eight a thread, so that all its loads are on their way at once.
inline constexpr int64_t kChunkElements = 2048;

/// Ranges that travel with a launch: a kernel has its parameters at hand, while out of a table in
/// memory it reads where its elements are before it can read them. Of each range the whole chunks;
/// chunks [first_chunk[i], first_chunk[i + 1]) of the launch are range i's.
struct LaunchedRanges {
  static constexpr int kMost = 32;
  Range ranges[kMost];
  int32_t first_chunk[kMost + 1] = {};
  int32_t count = 0;
};

/// constants[i] of options[i], *amax[i] = 0 and updates += 1, where finite; nothing where not.
template <typename Rule>
struct Begin {
  const RuleOptions* options = nullptr;
  typename Rule::Constants* constants = nullptr;
  int64_t count = 0;
  uint32_t* const* amax = nullptr;
  int64_t amax_count = 0;
  const double* learning_rate = nullptr;
  const float* gradient_scale = nullptr;
  const bool* finite = nullptr;
  float* updates = nullptr;
};
template <typename Rule>
void begin(const Begin<Rule>& args, Stream stream);

/// All ranges of the same types.
template <typename Rule>
struct Pass {
  Element master = Element::fp32;
  Element slots = Element::fp32;
  Element gradient = Element::fp32;
  const Range* ranges = nullptr;
  const Chunk* chunks = nullptr;
  int64_t chunk_count = 0;
  const typename Rule::Constants* constants = nullptr;
  const bool* finite = nullptr;
  const float* updates = nullptr;  // as begin() left it
};
template <typename Rule>
void update(const Pass<Rule>& args, Stream stream);
/// Of bf16 masters whose arrays begin at a multiple of 16 bytes, and eight neighbours of which
/// share their random bits: `args` without ranges and chunks.
template <typename Rule>
void update_words(const Pass<Rule>& args, const LaunchedRanges& ranges, Stream stream);

}  // namespace tptrain::optim::cuda
