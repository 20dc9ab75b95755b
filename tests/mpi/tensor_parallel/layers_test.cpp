// The tensor-parallel layers and the decoder cut over all ranks, against the full weights on one.
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/layer_checks.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

// All ranks as one tp axis. A test that needs several ranks fails on one: it would prove nothing.
class AllRanks {
 public:
  AllRanks()
      : mesh_(session(), {.dp_size = 1, .tp_size = session().size()}, comm::DeviceType::cpu) {
    REQUIRE(session().size() > 1);
  }
  comm::Communicator& tp() { return mesh_.tp(); }

 private:
  comm::DeviceMesh mesh_;
};

TEST_CASE("a column-parallel linear equals the full linear") {
  check_column_parallel_linear(AllRanks().tp());
}

TEST_CASE("a row-parallel linear equals the full linear") {
  check_row_parallel_linear(AllRanks().tp());
}

TEST_CASE("the cut vocabulary's embedding equals the full table's") {
  check_vocab_parallel_embedding(AllRanks().tp());
}

TEST_CASE("the cut vocabulary's cross entropy equals that of full logits") {
  check_vocab_parallel_cross_entropy(AllRanks().tp());
}

TEST_CASE("what enters a region is summed on the way back, what leaves it on the way out") {
  check_regions(AllRanks().tp());
}

TEST_CASE("the decoder's loss and gradients equal the reference's") {
  check_decoder_against_reference(AllRanks().tp());
}

TEST_CASE("micro-batches add up") { check_gradients_accumulate(AllRanks().tp()); }

TEST_CASE("generation equals the full forward for every chunking") {
  check_generation_against_reference(AllRanks().tp());
}

TEST_CASE("a layer costs two all-reduces forward and two backward") {
  check_collectives_per_layer(AllRanks().tp());
}

}  // namespace
}  // namespace tptrain::testing
