// What is said when a GPU's memory does not suffice: how much there is, what fills it by class of
// tensors, what to change. The numbers are the planner's forecast; they can be tried without a GPU.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/device_info.h"
#include "planner/plan.h"
#include "train/resolve.h"

namespace tptrain::train {

/// True for the caching allocator's error, and for what CUDA, NCCL, cuBLAS and cuDNN say where they
/// could not allocate.
bool is_out_of_memory(const std::exception& error);

/// "2.00 GiB" of the caching allocator's message; "" where it does not say.
std::string bytes_asked_for(const std::string& message);

/// A setting that takes less, and the forecast with it.
struct SmallerSetting {
  std::string setting;  // "train.micro_batch_size: 2"
  int64_t total_bytes = 0;
  bool fits = false;
};

struct MemoryForecast {
  planner::MemoryPlan memory;  // of the rank that takes most
  bool fits = false;
  /// In the order to try them: micro-batch (the largest that fits, else 1), recompute, ZeRO stage,
  /// tp size; each by itself, all else as it is.
  std::vector<SmallerSetting> smaller;
};
/// `card_bytes`: all of the device; what the libraries take is set aside.
MemoryForecast forecast_memory(const ResolvedConfig& resolved, int64_t card_bytes);

struct OutOfMemory {
  std::string doing;        // "step 3, forward and backward"
  std::string device_name;  // "NVIDIA H200"
  std::string asked_for;    // as of bytes_asked_for
  device::DeviceUse use;
  MemoryForecast forecast;
};
Problem out_of_memory_problem(const OutOfMemory& facts);

}  // namespace tptrain::train
