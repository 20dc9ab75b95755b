// The training loop: batches in, steps, metrics, evaluation, checkpoints. Everything it works with
// is complete before it is made.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/failure_tally.h"
#include "base/log.h"
#include "base/progress_board.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "metrics/console.h"
#include "metrics/recorder.h"
#include "optim/schedule.h"
#include "train/best_loss.h"
#include "train/cadence.h"
#include "train/engine.h"
#include "train/evaluation.h"
#include "train/host_numbers.h"
#include "train/outlier_guard.h"
#include "train/pace_meter.h"
#include "train/resolve.h"
#include "train/saver.h"
#include "train/step_exchange.h"
#include "train/time_limit.h"

namespace tptrain::train {

/// What the loop uses, all alive as long as it runs. `evaluation` may be null: there is none. The
/// recorder and the display are null on every rank but 0.
struct TrainerParts {
  const ResolvedConfig& config;
  comm::MpiSession& session;
  comm::DeviceMesh& mesh;
  Engine& engine;
  const data::BatchSampler& train_data;
  Evaluation* evaluation;
  bool owes_evaluation;  // of the step the run goes on from: it was stopped before or in it
  BestLoss& best_loss;
  Cadence saves;
  Cadence evaluations;
  checkpoint::CheckpointStore& store;
  zero::StateSnapshot* snapshot;  // null: training waits for saves
  Logger& log;
  metrics::Recorder* recorder;
  metrics::ProgressDisplay* progress;
  const TimeLimit& time_limit;
  OutlierGuard& guard;
  const std::optional<checkpoint::CheckpointInfo>& begun_at;  // nothing: anew
  std::chrono::steady_clock::time_point process_start;
};

struct RunOutcome {
  checkpoint::TrainState state;
  bool stopped_on_request = false;
  bool out_of_patience = false;
  std::optional<checkpoint::CheckpointInfo> last_checkpoint;
  std::optional<double> eval_loss;
  int64_t passed_over = 0;                 // steps without a target
  std::optional<int64_t> outlier = {};     // a step for which the run is to go back
  std::vector<std::string> failures = {};  // of what does not end a run: a line each
};

class Trainer {
 public:
  /// `first_step`: steps done before.
  Trainer(const TrainerParts& parts, int64_t first_step);
  ~Trainer();
  /// Trains from `state` to train.max_steps, until a stop is requested, the time is up, or
  /// evaluations have not got better for eval.patience; saves a last checkpoint,
  /// and evaluates after it. Where an outlier asks for it (outcome.outlier) it ends for the run to
  /// go back to outcome.last_checkpoint. A step whose global batch holds no target changes nothing
  /// but the schedule and the position in the data. What fails beside the training (an evaluation's
  /// data, metrics) is warned of and told in the outcome. Collective. Throws NumericsError on every
  /// rank where a step's loss or gradient norm is not finite (its update was not applied anywhere)
  /// and train.nonfinite is stop, or too many steps in a row were skipped; where one is an outlier
  /// and train.guard says so, or it is one too many; and where an audit finds parameters that
  /// drifted apart. Throws CheckpointError where a save failed and checkpoint.on_failure is stop,
  /// or the last one failed.
  RunOutcome run(checkpoint::TrainState state);

 private:
  struct Batch {
    std::vector<MicroBatch> micro_batches;  // empty where there is no target
    StepAgreement agreement;
  };
  struct Pending {  // a step whose numbers the host has not read yet
    int64_t step = 0;
    zero::StepNumbers numbers;
    HostNumbers host_numbers;
    double learning_rate = 0;
    int64_t tokens_seen = 0;
    int64_t target_tokens = 0;
    double step_time_s = 0;
    StepClock::Seconds phases = {};
    OutlierGuard::Bounds bounds = {};
    std::optional<tensor_parallel::Fp8Counters::Counts> fp8_counts = {};  // up to its end
  };
  struct Rollback {  // thrown on every rank alike
    int64_t outlier;
  };

  Batch next_batch(int64_t step);
  void train_step(const Batch& batch, checkpoint::TrainState& state);
  void pass_over(checkpoint::TrainState& state);
  void audit_if_due(int64_t step);
  void read_pending();
  struct Numbers {
    double loss;
    double norm;
  };
  /// Waits for the device.
  Numbers read_numbers(const Pending& pending);
  void skip_or_stop(const Pending& pending, double loss, double norm);
  void skip_or_roll_back(const Pending& pending, double loss, double norm);
  void record_skipped(int64_t step, std::string_view reason, double learning_rate,
                      int64_t tokens_seen);
  bool is_logged(int64_t step) const;
  /// Where they are asked for and the step has a line. Waits for the device.
  std::optional<tensor_parallel::Fp8Counters::Counts> fp8_counts_at(int64_t step) const;
  void add_fp8_counts(metrics::StepMetrics& step, const Pending& pending);
  void publish(const Pending& pending, double loss, double norm);
  std::optional<double> evaluate(int64_t step);
  std::optional<Evaluation::Result> try_evaluation(int64_t step);
  RunOutcome run_steps(checkpoint::TrainState state);
  /// Begins it; where training waits for saves, all of it.
  void save(const checkpoint::TrainState& state);
  bool save_if_due(const checkpoint::TrainState& state);
  bool keep_best(const checkpoint::TrainState& state, bool is_saved);
  void finish_save();
  void say_saved(const Saved& saved);
  bool is_best(int64_t step) const;
  /// The checkpoint of this step, which is saved or being saved, is the best so far.
  void name_best(const checkpoint::TrainState& state);
  /// Of a whole step: the host may hand over all of its micro-batches and then wait for the last.
  double step_patience() const;
  bool stop_wanted();
  double epoch_at(int64_t step) const;
  std::vector<metrics::SourceProgress> sources_at(int64_t step) const;
  double seconds_since_last_step();
  /// What was before is no part of the next step's time.
  void begin_step_time();
  void say_first_step();
  void say_how_steps_run();
  std::vector<std::string> failures() const;

  TrainerParts parts_;
  ProgressBoard* board_;
  optim::LearningRateSchedule schedule_;
  Saver saver_;
  std::optional<Pending> pending_;
  std::chrono::steady_clock::time_point
      last_issued_;  // the step before, whatever became of it, or the end of an evaluation or save
  metrics::StepPace pace_;
  double guessed_save_s_;  // of a save, before the first
  std::optional<checkpoint::CheckpointInfo> last_checkpoint_;
  bool time_is_up_ = false;
  bool first_step_said_ = false;
  bool how_steps_run_said_ = false;
  bool stopped_in_evaluation_ = false;
  int64_t skipped_in_a_row_ = 0;
  int64_t passed_over_ = 0;
  FailureTally failed_evaluations_;
  tensor_parallel::Fp8Counters::Counts fp8_counts_;  // as of the last line
  PaceMeter pace_meter_;
};

}  // namespace tptrain::train
