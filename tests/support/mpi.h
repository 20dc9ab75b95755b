// For tests under mpirun: the session that mpi_test_main made before the first test. A test program
// has one main and MPI can be started once, so this is the one global in the tree.
#pragma once

#include <functional>

#include "comm/mpi_session.h"

namespace tptrain::testing {

comm::MpiSession& session();

/// To be done once all tests have run, while all ranks are there: what tests share is taken down.
void before_session_ends(std::function<void()> what);

}  // namespace tptrain::testing
