// The numbers of a training, as whoever writes them down gets them. docs/metrics.md says what each
// is, by the names of metrics.jsonl.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/step_clock.h"

namespace tptrain::metrics {

/// Of a mixture with weights: what one source has given so far.
struct SourceProgress {
  std::string name;
  int64_t sequences = 0;
  double epoch = 0;  // passes over it
};

struct StepMetrics {
  int64_t step = 0;  // steps done, the first logged one is 1
  double loss = 0;
  double grad_norm = 0;
  double lr = 0;
  int64_t tokens_seen = 0;
  double epoch = 0;                          // passes over data.train so far
  std::vector<SourceProgress> sources = {};  // empty where there are no weights
  double time = 0;                           // seconds since 1970
  double step_time_s = 0;
  StepClock::Seconds phases = {};  // of rank 0's host, together step_time_s; 0: it has none such
  double tokens_per_second = 0;    // of the whole job
  double tokens_per_second_per_rank = 0;
  double tflops = 0;               // per rank
  std::optional<double> mfu = {};  // fraction; absent where the device's peak is not known
  int64_t peak_memory_bytes = 0;
  // Of what rank 0 has cast to FP8 since the line before; absent where that is not counted.
  std::optional<double> fp8_flushed = {};  // fraction
  std::optional<int64_t> fp8_saturated = {};
};

/// A step that changed no parameter.
struct SkippedStep {
  int64_t step = 0;
  std::string_view reason = {};  // "nonfinite" | "outlier" | "no_targets"
  double lr = 0;                 // that of the schedule, which goes on
  int64_t tokens_seen = 0;
  double epoch = 0;
  double time = 0;
};

/// Of one set of data.eval.
struct EvalOfSet {
  std::string name;
  double loss = 0;
  int64_t target_tokens = 0;
  double perplexity() const { return std::exp(loss); }
};

struct EvalMetrics {
  int64_t step = 0;
  double loss = 0;
  int64_t target_tokens = 0;
  std::vector<EvalOfSet> sets = {};  // empty where data.eval has none
  double time = 0;
  double perplexity() const { return std::exp(loss); }
};

struct SaveMetrics {
  int64_t step = 0;
  double stall_s = 0;  // that the training waited for it
  double save_s = 0;   // from its begin to its commit
  int64_t bytes = 0;   // of all shards
  double time = 0;
};

}  // namespace tptrain::metrics
