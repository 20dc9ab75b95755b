// Attention's tensors, and what its kernels take beside them.
#pragma once

#include "planner/activation_tensors.h"

namespace tptrain::planner {

struct Attended {
  Buffer context, logsumexp;
};

class AttentionActivations {
 public:
  AttentionActivations(const ActivationOptions& options, const Sizes& sizes,
                       ActivationTensors& make, Timeline& timeline)
      : options_(options), s_(sizes), make_(make), t_(timeline) {}

  Attended attend();
  Buffer attend_backward();

 private:
  /// [S, S] of the heads that are worked on together, fp32, and [S, D] of one of them.
  struct DropoutSizes {
    int64_t future, matrix, rows, one_head;
  };
  DropoutSizes dropout_sizes() const;
  int64_t scratch_bytes(bool backward) const;
  int64_t widened(int64_t width) const;
  int64_t logsumexp_bytes() const;
  int64_t fused_backward_bytes() const;

  const ActivationOptions& options_;
  const Sizes& s_;
  ActivationTensors& make_;
  Timeline& t_;
};

}  // namespace tptrain::planner
