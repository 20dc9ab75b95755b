// All ranks of the test as one tp axis.
#pragma once

#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/mpi.h"

namespace tptrain::testing {

/// Of several ranks: with one a test of the axis would prove nothing, and fails.
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

}  // namespace tptrain::testing
