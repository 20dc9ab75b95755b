// The rules by which ranks get GPUs, as checks on plain values: they can be tried without a GPU.
// Internal to comm.
#pragma once

#include <string>
#include <vector>

namespace tptrain::comm {

/// One GPU a rank. Throws CommError where a host has fewer GPUs than ranks.
void check_gpu_count(int ranks_on_host, int gpus);

/// `uuids`: of the GPU of every rank, in rank order. Throws CommError where two ranks hold one GPU,
/// as happens when a launcher shows each rank the same single device.
void check_gpus_distinct(const std::vector<std::string>& uuids);

}  // namespace tptrain::comm
