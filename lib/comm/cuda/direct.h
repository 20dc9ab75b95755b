// Small collectives in one kernel each, through memory that the ranks of an axis have opened to
// each other: every rank stores its data in the others' memory, raises a flag there, waits for
// theirs and reads what has come. Plain pointers, no torch.
//
// Memory of a rank: two slots in turn, and a Control. The turn is counted on the device, so a
// captured call can be replayed. A slot is written again two calls later: by then its reader has
// ended the call in which it read it, since it has raised its flag of the call in between.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace tptrain::comm {

inline constexpr int kMostDirectRanks = 8;
inline constexpr int kMostDirectBlocks = 64;

struct DirectControl {
  uint32_t calls;                                       // done so far
  uint32_t finished;                                    // blocks of the call under way
  uint32_t flags[kMostDirectRanks][kMostDirectBlocks];  // of each writer's blocks: its calls
};

enum class DirectCall { all_gather, reduce_scatter, all_reduce };
enum class DirectElement { bf16, fp32 };
enum class DirectOp { sum, max };

struct Direct {
  DirectCall call = DirectCall::all_gather;
  DirectElement element = DirectElement::bf16;
  DirectOp op = DirectOp::sum;  // of reductions: in fp32, in the order of ranks, rounded once
  int rank = 0;
  int ranks = 1;
  /// all_gather: this rank's piece; reduce_scatter: `ranks` pieces; all_reduce: the tensor.
  const void* input = nullptr;
  /// all_gather: `ranks` pieces; else one. May be the input, or its part that is this rank's.
  void* output = nullptr;
  int64_t piece_bytes = 0;             // a multiple of 16
  char* slots[kMostDirectRanks] = {};  // of each rank: the first of its two
  int64_t slot_bytes = 0;
  DirectControl* controls[kMostDirectRanks] = {};
};
void direct(const Direct& args, cudaStream_t stream);

}  // namespace tptrain::comm
