// Which of two fused attentions a GPU is faster with. Of cards that were measured it is known; on
// others both run at the first call of a size, forward and backward, and the faster one stays while
// the process lives. Knows nothing of attention.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

/// Of the current device; none where it is to be tried.
std::optional<FusedAttention> known_attention();

/// Everything that decides about time: sizes, type.
using AttentionKey = std::array<int64_t, 6>;
/// `run` does the whole work once, on the current stream of `on`'s device, which it does not
/// change. Waits for the device. While a graph is captured, and where memory is short, nothing is
/// tried: cuDNN. One that `run` throws for loses.
FusedAttention faster_attention(const AttentionKey& key, const at::Tensor& on,
                                const std::function<void(FusedAttention)>& run);

}  // namespace tptrain::kernels::cuda
