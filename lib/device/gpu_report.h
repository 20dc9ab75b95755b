// What a run says at its start about the GPUs it got, as text from plain values: it can be tried
// without a GPU. The values come from gpu_facts (device_info.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tptrain::device {

/// What ask_for_queues asks for where the user does not: the most that CUDA gives.
inline constexpr int kQueues = 32;
/// With fewer, a wait for a peer's push may stand before this rank's own in one queue: no direct
/// copies.
inline constexpr int kQueuesOfPushes = 16;

/// The GPU of one rank, and the libraries its process has loaded.
struct GpuFacts {
  std::string name;  // "NVIDIA H200"
  int64_t memory_bytes = 0;
  std::string driver;        // "580.65.06"; "" where NVML does not say
  std::string driver_cuda;   // the newest CUDA the driver knows: "13.0"
  std::string cuda_runtime;  // "13.0"
  std::string nccl;
  std::string cudnn;
  std::string cublas;
  std::string nccl_built;  // what the program was compiled with
  std::string cudnn_built;
  int local_rank = 0;
  int peers = 0;               // other ranks of this host
  int mapped_peers = 0;        // whose GPU's memory this one can map (P2P)
  std::optional<int> nvlinks;  // active ones; nothing: unknown
  /// CUDA_DEVICE_MAX_CONNECTIONS as CUDA takes it: queues of the device for this process's streams.
  int queues = kQueues;

  bool operator==(const GpuFacts&) const = default;
};

/// One text each way, to be gathered from all ranks.
std::string to_wire(const GpuFacts& facts);
GpuFacts gpu_facts_from_wire(const std::string& text);

struct GpuReport {
  std::vector<std::string> lines;
  /// Where ranks differ, and where something slower than need be was picked.
  std::vector<std::string> warnings;
};
/// `of_ranks`: in rank order, at least one.
GpuReport gpu_report(const std::vector<GpuFacts>& of_ranks);

/// cuDNN's number as it is written: 91900 -> "9.19.0".
std::string cudnn_version_text(int64_t version);
/// CUDA's: 12080 -> "12.8".
std::string cuda_version_text(int64_t version);
/// NCCL's: 22809 -> "2.28.9".
std::string nccl_version_text(int64_t version);
/// Whether version text `a` ("9.1.0") is of an older version than `b` ("9.19"), number by number.
bool is_older(const std::string& a, const std::string& b);

}  // namespace tptrain::device
