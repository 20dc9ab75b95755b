// The random numbers of dropout: one stream for every (seed, step, layer, site), in which the
// global sample, position and element choose the number (kernels::Dropout). Nothing to save, and
// the same on every layout.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/kernels.h"

namespace tptrain::model {

/// Of one micro-batch.
class DropoutNumbers {
 public:
  struct Options {
    double attention = 0.0;  // probabilities
    double residual = 0.0;
    double adapter = 0.0;  // inputs of adapters
    uint64_t seed = 0;
    int64_t step = 0;
    int64_t first_sample = 0;
  };
  explicit DropoutNumbers(const Options& options) : options_(options) {}

  /// Of layer `layer`'s attention probabilities; `first_head`: global number of local head 0.
  kernels::Dropout attention(int64_t layer, int64_t first_head) const;
  /// Of a sublayer's output ("attention", "mlp") or, with layer -1, of the embedding.
  kernels::Dropout residual(int64_t layer, std::string_view site) const;
  /// Of the input that the adapters of one packed linear share ("qkv_proj", "up_proj").
  kernels::Dropout adapter(int64_t layer, std::string_view linear) const;

 private:
  Options options_;
};

}  // namespace tptrain::model
