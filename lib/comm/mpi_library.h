#pragma once

#include <string>

namespace tptrain::comm {

/// The first line of what the MPI library that is loaded says of itself: "Open MPI v4.1.4, ...".
/// May be asked before ranks are started.
std::string mpi_library();

}  // namespace tptrain::comm
