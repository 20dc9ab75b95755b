// The bytes of one stored tensor, front to back, out of its canonical parts.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "formats/dtype.h"
#include "sharding/state_dict.h"
#include "sharding/stored_model.h"

namespace tptrain::checkpoint {

/// Elements in memory at once (16 MiB as fp32, and up to as much again on their way).
constexpr int64_t kStreamElements = int64_t{4} << 20;

/// Reads `parts` (all of one stored tensor) from `source` in bounded pieces and gives the stored
/// bytes to `write`, in order. Throws what the source and `write` throw.
void stream_stored_tensor(const sharding::TensorSource& source,
                          std::span<const sharding::StoredTensor> parts, formats::Dtype dtype,
                          const std::function<void(std::span<const std::byte>)>& write,
                          int64_t elements_at_once = kStreamElements);

}  // namespace tptrain::checkpoint
