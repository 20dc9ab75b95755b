// The loss on data.eval in the course of a training: which sequences, how many targets they hold,
// and the forward passes over them, for each of its sets. When, and what becomes of a failure, is
// the trainer's affair.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "metrics/step_metrics.h"
#include "train/engine.h"
#include "train/training_data.h"

namespace tptrain::train {

class Evaluation {
 public:
  struct Result {
    double loss = 0;  // mean cross entropy of the target tokens of all sets, in nats
    int64_t target_tokens = 0;
    std::vector<metrics::EvalOfSet> sets = {};  // where data.eval has some
    bool stopped = false;  // a rank was asked to stop meanwhile: the loss is not whole
  };

  /// Over the first `most_sequences` of each set (0: all), whatever the layout. Counts their
  /// targets: throws DataError on every rank where a set has none, or where a rank cannot read.
  /// `sets`, `session` and `mesh` outlive it. Collective.
  Evaluation(const std::vector<TrainingData::EvalSet>& sets, int64_t most_sequences,
             comm::MpiSession& session, comm::DeviceMesh& mesh);

  /// Ends early where a rank wants to stop. Throws DataError on every rank where one cannot read
  /// its share. Collective.
  Result run(Engine& engine, const std::function<bool()>& stop_wanted, int64_t step);

 private:
  struct Set {
    const data::BatchSampler& text;
    std::string name;
    int64_t sequences = 0;
    int64_t target_tokens = 0;
  };
  static int64_t rounds(const Set& set);
  data::HostBatch batch(const Set& set, int64_t round) const;
  void count_targets(Set& set);
  /// The mean loss of its targets; nothing where a rank wants to stop.
  std::optional<double> loss_of(const Set& set, Engine& engine,
                                const std::function<bool()>& stop_wanted, int64_t step);

  comm::MpiSession& session_;
  comm::DeviceMesh& mesh_;
  std::vector<Set> sets_;
};

}  // namespace tptrain::train
