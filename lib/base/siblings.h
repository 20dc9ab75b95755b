// The other ranks of this host as the kernel sees them: for a message of one that waits in vain.
#pragma once

#include <string>

namespace tptrain {

/// "rank 1 (process 4711) is stopped (SIGSTOP, or a debugger)" of each process that has this one's
/// parent and program and does not run; "" where all do. Calls nothing that could wait for them.
std::string siblings_that_do_not_run();

}  // namespace tptrain
