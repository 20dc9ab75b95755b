// The tensor-parallel layers cut over all ranks, against the full weights on one.
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

TEST_CASE("a region sums what leaves it, gathers what enters it, and padding reaches nothing") {
  check_sequence_region(AllRanks().tp());
}

}  // namespace
}  // namespace tptrain::testing
