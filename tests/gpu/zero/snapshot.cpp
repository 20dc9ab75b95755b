// A copy of the state of a GPU: what the device is given meanwhile does not reach it.
#include <ATen/ATen.h>

#include "support/catch.h"
#include "support/mpi.h"
#include "zero/state_snapshot.h"

namespace tptrain::testing {

TEST_CASE("a snapshot holds what the stream held when it was begun, however soon that changes",
          "[gpu]") {
  const at::Device gpu(at::kCUDA, static_cast<at::DeviceIndex>(session().local_rank()));
  constexpr int64_t kElements = int64_t{32} << 20;
  sharding::StateDict state;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    state.pieces.push_back({.kind = sharding::kMaster,
                            .spec = sharding::whole_tensor(at::toString(dtype), {kElements}),
                            .begin = 0,
                            .end = kElements,
                            .save = true,
                            .data = at::zeros({kElements}, at::TensorOptions(gpu).dtype(dtype))});
  }
  zero::StateSnapshot snapshot(state, gpu);
  for (int round = 1; round <= 5; ++round) {
    for (sharding::StatePiece& piece : state.pieces) piece.data.fill_(round);
    snapshot.begin(state);
    snapshot.let_state_change();
    for (sharding::StatePiece& piece : state.pieces) piece.data.fill_(-round);
    snapshot.wait();
    for (const sharding::StatePiece& copy : snapshot.copy().pieces) {
      CHECK(copy.data.is_cpu());
      CHECK(copy.data.eq(round).all().item<bool>());
    }
    CHECK(state.pieces[0].data.eq(-round).all().item<bool>());
  }
}

}  // namespace tptrain::testing
