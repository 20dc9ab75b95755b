// Calls and bytes of one rank's collectives in a step. Bytes are of full tensors (before reduction,
// after gathering), as comm::CommCounters counts them. An axis of one rank has none. Left out: the
// few bytes of the gradient norm and of the losses.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/decoder_config.h"
#include "parameters/parameter.h"
#include "zero/param_buckets.h"

namespace tptrain::planner {

struct Layout;

struct Collective {
  int64_t calls = 0;
  int64_t bytes = 0;
  bool operator==(const Collective&) const = default;
};

/// Over tp in one micro-batch, the same in every ZeRO stage. With T tokens and H hidden_size:
/// sequence parallelism gathers and reduce-scatters [T, H] (T padded to a multiple of tp), without
/// it the layers all-reduce [T, H]; the cross entropy all-reduces 3 T numbers in 2 calls either
/// way.
struct TpCommunication {
  Collective all_gather;
  Collective reduce_scatter;
  Collective all_reduce;
};

/// Of one ZeRO stage, in a step.
struct StageCommunication {
  Collective tp_gradients;       // all-reduce: partial gradients, copies of kv heads
  Collective dp_reduce_scatter;  // gradients
  Collective dp_all_gather;      // 0: reduced gradients; 1, 2: updated parameters; 3: before use
  // All-reduce: largest magnitudes of weights that are cast to FP8, once an update.
  Collective tp_fp8_scales;
  Collective dp_fp8_scales;
  // Of a rule by matrices, which are brought together and sent back (zero/rank_matrices.h):
  Collective dp_all_to_all;
  Collective tp_all_to_all;
};

struct Communication {
  TpCommunication tp;  // a micro-batch
  std::array<StageCommunication, 4> stages;
};

/// Of the rank whose parameters `blocks` and `buckets` (zero::lay_out) are.
Communication communication_of(const model::DecoderConfig& config, const Layout& layout,
                               const std::vector<parameters::ParameterBlock>& blocks,
                               const std::vector<zero::Bucket>& buckets);

}  // namespace tptrain::planner
