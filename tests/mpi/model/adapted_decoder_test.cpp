// Adapters beside a decoder that is cut over all ranks.
#include "comm/device_mesh.h"
#include "support/adapter_checks.h"
#include "support/catch.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

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

TEST_CASE("adapters over tp: the merged model's losses, logits and gradients") {
  check_adapters_against_reference(AllRanks().tp());
}

TEST_CASE("adapters over tp drop what one rank drops") { check_adapter_dropout(AllRanks().tp()); }

TEST_CASE("adapters over tp: no collective more than the base has") {
  check_adapter_collectives(AllRanks().tp());
}

}  // namespace
}  // namespace tptrain::testing
