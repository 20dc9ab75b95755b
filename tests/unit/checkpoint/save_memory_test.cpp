// What a save and a load take beside the state: a few chunks, however large a tensor is and
// whatever type it is kept in.
#include <ATen/Functions.h>

#include "checkpoint/checkpoint_store.h"
#include "comm/control.h"
#include "kernels/cpu/counting_allocator.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::checkpoint {
namespace {

using kernels::cpu::CountingAllocator;
using sharding::kStateChunkElements;

constexpr int64_t kElements = 4 * kStateChunkElements + 7;
constexpr int64_t kFewChunks = 2 * kStateChunkElements * static_cast<int64_t>(sizeof(float));

sharding::StateDict state_of(at::Tensor values) {
  return {.pieces = {{.kind = sharding::kMaster,
                      .spec = sharding::whole_tensor("model.embed_tokens.weight", {kElements}),
                      .begin = 0,
                      .end = kElements,
                      .save = true,
                      .data = std::move(values)}}};
}

}  // namespace

TEST_CASE("a state of several chunks is saved and loaded in the memory of a few", "[checkpoint]") {
  CountingAllocator& allocator = CountingAllocator::install();
  const testing::TempDir directory;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    INFO(dtype);
    comm::SingleRank group;
    CheckpointStore store(group, {.directory = directory.path() / at::toString(dtype)});
    const at::Tensor values = at::arange(kElements, at::kFloat).sin_().to(dtype);
    const int64_t before = allocator.live_bytes();
    allocator.restart_peak();
    const CheckpointInfo saved = store.save(state_of(values), testing::train_state_of(1));
    CHECK(allocator.peak_bytes() - before <= kFewChunks);

    sharding::StateDict loaded = state_of(at::zeros({kElements}, dtype));
    const int64_t before_load = allocator.live_bytes();
    allocator.restart_peak();
    store.load_into(loaded, saved);
    CHECK(allocator.peak_bytes() - before_load <= kFewChunks);
    CHECK(at::equal(loaded.pieces[0].data, values));
  }
}

}  // namespace tptrain::checkpoint
