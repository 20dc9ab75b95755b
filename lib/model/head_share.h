// Which heads a tp rank works on, and which tp sizes a decoder's heads allow. Pure arithmetic.
#pragma once

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"
#include "tensor_parallel/partition.h"

namespace tptrain::model {

struct HeadShare {
  tensor_parallel::Range heads;     // query heads
  tensor_parallel::Range kv_heads;  // those they read
  bool owns_kv = true;              // one of the ranks that hold the same kv head does
  parameters::TpCopies kv_copies = {};
};

/// With at least as many kv heads as ranks: whole kv heads with all their query heads, the first
/// ranks one more where they do not divide. With more ranks: every rank one kv head, which tp / kv
/// ranks hold alike, and a share of its query heads (14 heads, 2 kv heads, tp 4: 4, 3, 4, 3). The
/// tp size must be one that works (check_tp_size).
HeadShare head_share(const DecoderConfig& config, int tp_rank, int tp_size);

}  // namespace tptrain::model
