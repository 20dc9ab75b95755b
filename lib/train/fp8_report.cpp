#include "train/fp8_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/text.h"
#include "device/device_info.h"
#include "kernels/fp8.h"

namespace tptrain::train {

namespace {

// Measured on an H200: Qwen2.5-0.5B (896) gains 12 %, Llama-3-8B's layers (4,096) 31 %. What a cast
// costs against what its product saves falls with the width; below this nothing was measured.
constexpr int64_t kSmallestMeasuredHidden = 768;

}  // namespace

void log_fp8(const ResolvedConfig& resolved, const model::Decoder& decoder, Logger& log) {
  const config::TrainConfig& train = resolved.run.train;
  if (train.fp8 != config::Fp8::on) return;
  const std::vector<std::string> left = decoder.linears_left_in_bf16();
  const int64_t layers =
      std::max<int64_t>(0, resolved.decoder.num_hidden_layers - train.fp8_bf16_first_layers -
                               train.fp8_bf16_last_layers);
  log.info(cat("FP8: the linears of ", layers, " of ", resolved.decoder.num_hidden_layers,
               " layers", train.fp8_all_gather == config::Fp8::on ? ", gathered as such" : "",
               "; MFU is of the bf16 peak"));
  if (!left.empty())
    log.warn(cat("FP8: ", left.size(),
                 " linears stay bf16, since a size of theirs on a rank is no "
                 "multiple of ",
                 kernels::kFp8Multiple, ": ", left.front(), left.size() > 1 ? ", ..." : ""));
  if (resolved.decoder.hidden_size < kSmallestMeasuredHidden)
    log.warn(cat("FP8: no gain is to be expected at hidden_size ", resolved.decoder.hidden_size,
                 ": casts take about what such products save"));
}

void check_fp8(const ResolvedConfig& resolved, at::Device device) {
  if (resolved.run.train.fp8 != config::Fp8::on || kernels::multiplies_fp8(device)) return;
  throw ConfigError(
      problem(cat("train.fp8 is on, and ", device::device_name(device), " does not multiply FP8"))
          .must("be a GPU of compute capability 8.9 or above (Ada, Hopper, Blackwell)")
          .remedy("Leave train.fp8 out."));
}

}  // namespace tptrain::train
