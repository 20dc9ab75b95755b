#include "model/head_share.h"

namespace tptrain::model {

using tensor_parallel::Range;
using tensor_parallel::share_of;

HeadShare head_share(const DecoderConfig& config, int tp_rank, int tp_size) {
  const auto kv_heads = static_cast<int>(config.num_key_value_heads);
  const int64_t group = config.num_attention_heads / kv_heads;  // query heads of a kv head
  if (kv_heads >= tp_size) {
    const Range kv = share_of(kv_heads, tp_rank, tp_size);
    return {.heads = {.begin = kv.begin * group, .end = kv.end * group}, .kv_heads = kv};
  }
  const int copies = tp_size / kv_heads;
  const int kv = tp_rank / copies;
  const Range within = share_of(group, tp_rank % copies, copies);
  return {.heads = {.begin = kv * group + within.begin, .end = kv * group + within.end},
          .kv_heads = {.begin = kv, .end = kv + 1},
          .owns_kv = tp_rank % copies == 0,
          .kv_copies = {.part = kv, .parts = kv_heads}};
}

}  // namespace tptrain::model
