// For tests under mpirun: the session that mpi_test_main made before the first test. A test program
// has one main and MPI can be started once, so this is the one global in the tree.
#pragma once

#include "comm/mpi_session.h"

namespace tptrain::testing {

comm::MpiSession& session();

}  // namespace tptrain::testing
