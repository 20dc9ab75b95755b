// The loss on data.eval in the course of a training: which sequences, how many targets they hold,
// and the forward passes over them. When, and what becomes of a failure, is the trainer's affair.
#pragma once

#include <cstdint>
#include <functional>

#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "train/engine.h"

namespace tptrain::train {

class Evaluation {
 public:
  struct Result {
    double loss = 0;  // mean cross entropy of the target tokens, in nats
    int64_t target_tokens = 0;
    bool stopped = false;  // a rank was asked to stop meanwhile: the loss is not whole
  };

  /// Over the first `most_sequences` of `text` (0: all), whatever the layout. Counts their targets:
  /// throws DataError on every rank where there is none, or where a rank cannot read. `text`,
  /// `session` and `mesh` outlive it. Collective.
  Evaluation(const data::BatchSampler& text, int64_t most_sequences, comm::MpiSession& session,
             comm::DeviceMesh& mesh);

  /// Ends early where a rank wants to stop. Throws DataError on every rank where one cannot read
  /// its share. Collective.
  Result run(Engine& engine, const std::function<bool()>& stop_wanted, int64_t step);

 private:
  int64_t rounds() const;
  data::HostBatch batch(int64_t round) const;

  const data::BatchSampler& text_;
  comm::MpiSession& session_;
  comm::DeviceMesh& mesh_;
  int64_t sequences_ = 0;
  int64_t target_tokens_ = 0;
};

}  // namespace tptrain::train
