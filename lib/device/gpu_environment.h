// What CUDA reads of the environment once, when the driver is first touched.
#pragma once

namespace tptrain::device {

/// Asks for all queues that the device has, where the user does not say how many: streams that
/// share one wait for each other, and one that waits for a peer's push must not hold up this rank's
/// own. To be called first thing in main: MPI_Init may touch the driver.
void ask_for_queues();
/// Queues of the device for this process's streams (CUDA_DEVICE_MAX_CONNECTIONS as CUDA takes it).
int queues_of_device();

}  // namespace tptrain::device
