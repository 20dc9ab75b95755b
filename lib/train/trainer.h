// The training loop: batches in, steps, metrics, evaluation, checkpoints. Everything it works with
// is complete before it is made.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/progress_board.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "metrics/step_metrics.h"
#include "optim/schedule.h"
#include "train/engine.h"
#include "train/host_numbers.h"
#include "train/resolve.h"
#include "train/step_exchange.h"
#include "train/stop_request.h"

namespace tptrain::train {

/// What the loop uses, all alive as long as it runs. `eval` may be null: no evaluation. The writers
/// are null on every rank but 0.
struct TrainerParts {
  const ResolvedConfig& config;
  comm::MpiSession& session;
  comm::DeviceMesh& mesh;
  Engine& engine;
  const data::BatchSampler& train_data;
  const data::BatchSampler* eval_data;
  checkpoint::CheckpointStore& store;
  Logger& log;
  metrics::JsonlWriter* jsonl;
  metrics::ProgressDisplay* progress;
  const StopRequest& stop;
  std::chrono::steady_clock::time_point process_start;
};

struct RunOutcome {
  checkpoint::TrainState state;
  bool stopped_on_request = false;
  std::optional<checkpoint::CheckpointInfo> last_checkpoint;
  std::optional<double> eval_loss;
};

class Trainer {
 public:
  explicit Trainer(const TrainerParts& parts);
  /// Trains from `state` to train.max_steps, or until a stop is requested; saves a last checkpoint.
  /// Collective. Throws NumericsError on every rank where a step's loss or gradient norm is not
  /// finite (its update was not applied anywhere) and train.nonfinite is stop, or too many steps in
  /// a row were skipped; and where an audit finds parameters that drifted apart.
  RunOutcome run(checkpoint::TrainState state);

 private:
  struct Batch {
    std::vector<MicroBatch> micro_batches;
    StepAgreement agreement;
  };
  struct Pending {  // a step whose numbers the host has not read yet
    int64_t step = 0;
    zero::StepNumbers numbers;
    HostNumbers host_numbers;
    double learning_rate = 0;
    int64_t tokens_seen = 0;
    int64_t target_tokens = 0;
    std::chrono::steady_clock::time_point
        issued;  // when the host had handed all of it to the device
  };

  Batch next_batch(int64_t step);
  void read_pending();
  void skip_or_stop(const Pending& pending, double loss, double norm);
  void publish(const Pending& pending, double loss, double norm);
  double evaluate(int64_t step);
  checkpoint::CheckpointInfo save(const checkpoint::TrainState& state);
  /// Of a whole step: the host may hand over all of its micro-batches and then wait for the last.
  double step_patience() const;
  void say_how_steps_run();
  void log_line(const std::string& line);

  TrainerParts parts_;
  ProgressBoard* board_;
  optim::LearningRateSchedule schedule_;
  std::optional<Pending> pending_;
  std::chrono::steady_clock::time_point
      last_issued_;  // of the step before, or the end of an evaluation or save after it
  bool first_step_said_ = false;
  bool how_steps_run_said_ = false;
  int64_t skipped_in_a_row_ = 0;
  int64_t eval_target_tokens_ = 0;  // of an evaluation; 0: not yet counted
};

}  // namespace tptrain::train
