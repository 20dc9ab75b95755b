// Dropout on [heads, S, B, width], which both users of it share: dropout_ and attention's
// probabilities. Private to this folder.
#pragma once

#include "kernels/kernels.h"

namespace tptrain::kernels {

/// In place; contiguous. Row (n, s, b) draws with position first_position + s, sample
/// dropout.first_sample + b, head dropout.first_head + n; index runs along the last dimension.
void dropout_heads_(const at::Tensor& x, const Dropout& dropout, int64_t first_position);

}  // namespace tptrain::kernels
