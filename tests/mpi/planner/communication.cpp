// The forecast of communication against the counters of a real step, to the byte.
#include <ATen/ATen.h>

#include "comm/device_mesh.h"
#include "model/decoder.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "zero/param_buckets.h"
#include "zero/zero_optimizer.h"

namespace tptrain::planner {
namespace {

using testing::session;

constexpr int64_t kMicroBatches = 3;

model::DecoderConfig tiny() {
  return {.model_type = "llama",
          .vocab_size = 260,
          .hidden_size = 30,
          .intermediate_size = 64,
          .num_hidden_layers = 3,
          .num_attention_heads = 4,
          .num_key_value_heads = 4,
          .head_dim = 8};
}

comm::CommCounters minus(const comm::CommCounters& a, const comm::CommCounters& b) {
  return {.all_reduces = a.all_reduces - b.all_reduces,
          .reduce_scatters = a.reduce_scatters - b.reduce_scatters,
          .all_gathers = a.all_gathers - b.all_gathers,
          .broadcasts = a.broadcasts - b.broadcasts,
          .bytes = a.bytes - b.bytes};
}

void check_layout(int tp_size, int zero_stage) {
  const int dp_size = session().size() / tp_size;
  INFO("tp " << tp_size << " dp " << dp_size << " ZeRO " << zero_stage);
  const Layout layout = {.tp_size = tp_size,
                         .dp_size = dp_size,
                         .zero_stage = zero_stage,
                         .seq_length = 16,
                         .micro_batch_size = 2};
  const Communication planned = make_plan(tiny(), layout).communication;

  comm::DeviceMesh mesh(session(), {.dp_size = dp_size, .tp_size = tp_size}, comm::DeviceType::cpu);
  model::Decoder decoder(tiny(), mesh.tp());
  zero::ParamBuckets buckets(decoder.blocks(), {.rank = mesh.dp_rank(), .size = dp_size}, at::kCPU);
  zero::ZeroOptimizer optimizer(buckets, mesh.tp(), mesh.dp(),
                                {.zero_stage = zero_stage, .optimizer = {}});
  optimizer.initialise(1);
  const at::Tensor ids = at::zeros({layout.seq_length, layout.micro_batch_size}, at::kLong);

  const comm::CommCounters tp_before = mesh.tp().counters();
  optimizer.begin_step();
  for (int64_t i = 0; i < kMicroBatches; ++i) {
    decoder.loss(ids, ids, at::scalar_tensor(1.0 / 96), optimizer).backward();
  }
  const comm::CommCounters tp = minus(mesh.tp().counters(), tp_before);
  CHECK(tp.all_reduces == kMicroBatches * planned.tp_all_reduces_per_micro_batch);
  CHECK(tp.bytes == kMicroBatches * planned.tp_all_reduce_bytes_per_micro_batch);

  const comm::CommCounters dp_before = mesh.dp().counters();
  optimizer.finish_reduction();
  const comm::CommCounters reduced = minus(mesh.dp().counters(), dp_before);
  optimizer.clip(1.0);
  const comm::CommCounters norm_done = mesh.dp().counters();
  optimizer.update(1e-3);
  const comm::CommCounters updated = minus(mesh.dp().counters(), norm_done);
  // ZeRO 0 gathers the gradients with the reduction, ZeRO 1 the parameters with the update.
  CHECK(reduced.bytes + updated.bytes ==
        planned.dp_reduce_scatter_bytes_per_step + planned.dp_all_gather_bytes_per_step);
  CHECK((zero_stage == 0 ? updated.bytes : updated.bytes - planned.dp_all_gather_bytes_per_step) ==
        0);
}

TEST_CASE("planned communication is what a step moves", "[planner]") {
  for (const int zero_stage : {0, 1}) {
    for (int tp_size = 1; tp_size <= session().size(); tp_size *= 2)
      check_layout(tp_size, zero_stage);
  }
}

}  // namespace
}  // namespace tptrain::planner
