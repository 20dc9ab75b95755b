// The inside of MpiSession, for DeviceMesh, which splits its world. Internal to comm.
#pragma once

#include <memory>

#include "comm/mpi_group.h"
#include "comm/mpi_session.h"

namespace tptrain::comm {

struct MpiSession::Impl {
  ProgressBoard own_board;  // where the session was given none
  ProgressBoard* board;
  std::unique_ptr<MpiGroup> world;
  std::unique_ptr<MpiGroup> host;  // the ranks of this host
};

}  // namespace tptrain::comm
