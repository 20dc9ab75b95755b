// The kernels of a trial of peer memory (peer_probe.h): plain pointers, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "comm/cuda/sum_pieces.h"

namespace tptrain::comm {

/// One round of stores: to each other rank `words` words, then a flag there; then, rank by rank,
/// its flag here and its words from this rank's slot into `came`. A slot is written again two
/// rounds later, as in direct.h.
struct ProbeStores {
  int rank = 0;
  int ranks = 1;       // at most kMostPieces
  uint32_t round = 0;  // from 1 on: what the flags are raised to
  int64_t words = 0;
  const uint32_t* sent = nullptr;           // [rank][word]
  uint32_t* came = nullptr;                 // [rank][word]
  uint32_t* slots[kMostPieces] = {};        // of each rank: this round's, [writer][word]
  uint32_t* flags_there[kMostPieces] = {};  // in each rank's memory: this one's
  const uint32_t* flags_here[kMostPieces] = {};
  /// For a flag, before what lies there is taken as it is, and no flag of that rank waited for
  /// again.
  uint64_t patience_ns = 0;
  uint32_t* given_up = nullptr;  // [rank]; zeroed before the first round
};
void probe_stores(const ProbeStores& args, cudaStream_t stream);

/// Copies by a kernel, which reads as the kernels of a step read.
void probe_take(uint32_t* to, const uint32_t* from, int64_t words, cudaStream_t stream);

}  // namespace tptrain::comm
