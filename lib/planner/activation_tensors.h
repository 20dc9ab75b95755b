// The tensors that layers and ends make alike, as tensor_parallel/sequence_region.cpp and
// model/norm.cpp make them.
#pragma once

#include <utility>

#include "planner/activation_sizes.h"
#include "planner/timeline.h"

namespace tptrain::planner {

struct Stream {
  Buffer residual, delta;
};
struct Norm {
  Buffer sum, output, statistics;
};

class ActivationTensors {
 public:
  ActivationTensors(const ActivationOptions& options, const Sizes& sizes, Timeline& timeline)
      : options_(options), s_(sizes), t_(timeline) {}

  /// One of those that model/layer_tensors.h declares.
  Buffer kept(model::LayerTensor tensor) { return t_.make(s_.bytes(tensor)); }

  // --- sequence_region.cpp
  Buffer slice() { return t_.make(s_.slice_tokens * s_.hidden * s_.element); }
  Buffer columns(int64_t width) { return t_.make(s_.tokens * width * s_.element); }
  /// Between GPUs that push, into the push buffers.
  Buffer start_gather(const Buffer& outside) {
    if (s_.sliced && pushes_over_tp(options_)) return t_.make(0);
    return gather(outside);
  }
  /// Of an FP8 linear's input or gradient: in bytes, from a slice that is cast and stays until the
  /// whole is waited for (tensor_parallel/fp8_linear.h).
  struct Gathering {
    Buffer cast_slice, whole;
  };
  bool gathers_bytes(bool fp8) const {
    return fp8 && options_.training.fp8.all_gather && s_.sliced;
  }
  Gathering start_gather_for(bool fp8, const Buffer& outside) {
    if (!gathers_bytes(fp8)) return {.cast_slice = {}, .whole = start_gather(outside)};
    Buffer slice = t_.make(s_.slice_tokens * s_.hidden);
    const bool pushed = pushes_over_tp(options_);
    return {.cast_slice = std::move(slice),
            .whole = t_.make(pushed ? 0 : s_.padded_tokens * s_.hidden)};
  }
  /// The same of a slice that the gather alone reads: its cast takes its place.
  Buffer start_last_gather(bool fp8, Buffer& slice) {
    Gathering gathering = start_gather_for(fp8, slice);
    if (gathering.cast_slice) slice = std::move(gathering.cast_slice);
    return std::move(gathering.whole);
  }
  Buffer gather(const Buffer& outside) {
    return s_.sliced ? t_.make(s_.padded_tokens * s_.hidden * s_.element) : outside;
  }
  Buffer reduce(Buffer partial) {
    if (!s_.sliced) return partial;
    if (s_.padded_tokens != s_.tokens) partial = t_.make(s_.padded_tokens * s_.hidden * s_.element);
    return slice();
  }
  /// A sum under way: its terms, until it is finished, and its result.
  struct Reducing {
    Buffer terms, result;
  };
  Reducing start_reduce() {
    if (!s_.sliced) return {.terms = {}, .result = columns(s_.hidden)};
    Buffer terms = t_.make(s_.padded_tokens * s_.hidden * s_.element);
    return {.terms = std::move(terms), .result = slice()};
  }

  // --- model/norm.cpp
  Norm norm(const Stream& stream) {
    Norm result;
    result.sum = stream.delta ? slice() : stream.residual;
    result.output = slice();
    result.statistics = kept(model::LayerTensor::attention_statistics);  // all norms' are alike
    return result;
  }
  Buffer dropout_backward(const Buffer& grad) {
    return options_.training.residual_dropout > 0 ? slice() : grad;
  }

 private:
  const ActivationOptions& options_;
  const Sizes& s_;
  Timeline& t_;
};

}  // namespace tptrain::planner
