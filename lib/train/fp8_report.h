// What a run says of train.fp8: where it is refused, what runs in it, and whether that can pay.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/log.h"
#include "model/decoder.h"
#include "train/resolve.h"

namespace tptrain::train {

/// Throws ConfigError where the device does not multiply FP8.
void check_fp8(const ResolvedConfig& resolved, at::Device device);
/// Which linears multiply in FP8; nothing without train.fp8.
void log_fp8(const ResolvedConfig& resolved, const model::Decoder& decoder, Logger& log);

}  // namespace tptrain::train
