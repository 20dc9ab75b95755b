// Which of several fused attentions a GPU is faster with, forward and backward each for itself. Of
// cards that were measured it is known; on others all run at the first call of a size, and the
// fastest one stays while the process lives. Knows nothing of attention.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

/// Which of cuDNN and FlashAttention-2, of the current device; none where it is to be tried. Or
/// what a test chose.
std::optional<FusedAttention> known_attention();

enum class AttentionPass { forward, backward };
/// Everything that decides about time: sizes, type, pass.
using AttentionKey = std::array<int64_t, 7>;
/// One of `contenders`; the first where a later one is no clear gain. `run` does the work of one
/// once, on the current stream of `on`'s device, which it does not
/// change. Waits for the device. While a graph is captured, and where memory is short, nothing is
/// tried: the first. One that `run` throws for loses.
FusedAttention faster_attention(const AttentionKey& key, const at::Tensor& on,
                                const std::vector<FusedAttention>& contenders,
                                const std::function<void(FusedAttention)>& run);

}  // namespace tptrain::kernels::cuda
