// Where the numbers of a training are written: each step, skipped step and evaluation goes to every
// sink. A sink that fails does not end the training. Rank 0 only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/failure_tally.h"
#include "metrics/step_metrics.h"

namespace tptrain::metrics {

class Sink {
 public:
  virtual ~Sink() = default;
  /// For messages: the path that it writes to.
  virtual std::string name() const = 0;
  // Each throws DataError where it cannot write; the next call is tried all the same.
  virtual void step(const StepMetrics& metrics) = 0;
  virtual void skipped(const SkippedStep& step) = 0;
  virtual void eval(const EvalMetrics& metrics) = 0;
  virtual void save(const SaveMetrics& metrics) = 0;
};

class Recorder {
 public:
  using Warn = std::function<void(const std::string&)>;
  /// `warn` gets a sink's first failure, and then one in ten minutes at most.
  explicit Recorder(Warn warn) : warn_(std::move(warn)) {}

  void add(std::unique_ptr<Sink> sink);
  void step(const StepMetrics& metrics);
  void skipped(const SkippedStep& step);
  void eval(const EvalMetrics& metrics);
  void save(const SaveMetrics& metrics);

  /// A line for each sink that failed: how often, and with what the last time.
  std::vector<std::string> failures() const;

 private:
  struct Written {
    std::unique_ptr<Sink> sink;
    FailureTally failed = {};
  };
  void to_each(const std::function<void(Sink&)>& write);

  Warn warn_;
  std::vector<Written> sinks_;
};

}  // namespace tptrain::metrics
