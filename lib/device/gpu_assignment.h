// The rules by which ranks get GPUs, as checks on plain values: they can be tried without a GPU.
// Internal to comm.
#pragma once

#include <string>
#include <vector>

namespace tptrain::device {

/// The index of the GPU of a rank among the `gpus` that its process sees: its rank on the host, or
/// 0 where a launcher shows each rank one GPU alone. Throws CommError where there are fewer GPUs
/// than ranks otherwise.
int gpu_of_rank(int local_rank, int ranks_on_host, int gpus);

/// `uuids`: of the GPU of every rank, in rank order. Throws CommError where two ranks hold one GPU,
/// as happens when a launcher shows each rank the same single device.
void check_gpus_distinct(const std::vector<std::string>& uuids);

}  // namespace tptrain::device
