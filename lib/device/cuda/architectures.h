// Internal to comm.
#pragma once

namespace tptrain::device {

/// Whether the driver has code of this program for the GPU that is current to this thread.
bool current_gpu_runs_this_program();

}  // namespace tptrain::device
