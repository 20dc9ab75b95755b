#include "train/trainer.h"

#include <cmath>

#include "base/error.h"
#include "base/stop.h"
#include "base/text.h"
#include "device/device_facts.h"
#include "model/decoder_config.h"
#include "train/cadence.h"
#include "train/health.h"
#include "train/run_options.h"
#include "train/wall_clock.h"

namespace tptrain::train {
namespace {

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

constexpr double kSlowDisk = 200e6;  // bytes a second

constexpr std::string_view kNoTargets = "no_targets";

}  // namespace

Trainer::Trainer(const TrainerParts& parts, int64_t first_step)
    : parts_(parts),
      board_(parts.session.board()),
      schedule_(parts.config.run.scheduler, parts.config.run.optimizer.learning_rate,
                parts.config.run.train.max_steps),
      saver_(parts.store, parts.session, parts.log, parts.config.run.checkpoint.on_failure,
             parts.snapshot, [this](const Saved& saved) { say_saved(saved); }),
      last_issued_(std::chrono::steady_clock::now()),
      pace_(first_step, parts.config.run.train.max_steps),
      guessed_save_s_(static_cast<double>(planner::checkpoint_bytes(parts.config.decoder,
                                                                    planned_layout(parts.config))) /
                      kSlowDisk),
      pace_meter_(parts.engine.device()) {}

Trainer::~Trainer() { parts_.engine.state().call_before_update({}); }

RunOutcome Trainer::run_steps(checkpoint::TrainState state) {
  const config::RunConfig& run = parts_.config.run;
  RunOutcome outcome;
  bool saved_here = true;  // nothing to save before the first step of this process
  if (parts_.owes_evaluation) {
    outcome.eval_loss = evaluate(state.step);
    if (state.step > 0 && is_best(state.step)) name_best(state);  // it began at this checkpoint
  }
  begin_step_time();

  while (state.step < run.train.max_steps && !stopped_in_evaluation_ &&
         !parts_.best_loss.is_out_of_patience()) {
    const Batch batch = next_batch(state.step);
    if (batch.agreement.save_step_done || batch.agreement.save_failed) {
      board_->enter("going on with a checkpoint", state.step);
      saver_.continue_save(batch.agreement.save_failed);
    }
    if (batch.agreement.stop_requested) {
      outcome.stopped_on_request = true;
      break;
    }
    audit_if_due(state.step + 1);
    if (batch.agreement.target_tokens > 0) {
      train_step(batch, state);
    } else {
      pass_over(state);
    }

    saved_here = save_if_due(state);
    // After the save: whatever an evaluation meets, the steps are not lost.
    if (state.step == run.train.max_steps || parts_.evaluations.due(state.step)) {
      read_pending();
      outcome.eval_loss = evaluate(state.step);
      if (is_best(state.step)) saved_here = keep_best(state, saved_here);
    }
  }
  read_pending();
  outcome.stopped_on_request |= stopped_in_evaluation_;
  finish_save();
  if (!saved_here || saver_.last_failed()) {
    save(state);
    finish_save();
  }
  saver_.throw_if_last_failed();
  outcome.last_checkpoint = last_checkpoint_;
  outcome.out_of_patience = parts_.best_loss.is_out_of_patience();
  outcome.state = state;
  outcome.passed_over = passed_over_;
  outcome.failures = failures();
  return outcome;
}

void Trainer::train_step(const Batch& batch, checkpoint::TrainState& state) {
  board_->enter("forward and backward", state.step + 1, step_patience());
  const double learning_rate = schedule_.learning_rate(state.step);
  const OutlierGuard::Bounds bounds = parts_.guard.bounds_for(state.step + 1);
  if (parts_.guard.is_on()) parts_.engine.zero().set_bounds(bounds.loss, bounds.norm);
  zero::StepNumbers numbers =
      parts_.engine.step(batch.micro_batches, batch.agreement.target_tokens, learning_rate,
                         parts_.config.run.optimizer.max_grad_norm);
  state.step += 1;
  state.tokens_seen += batch.agreement.target_tokens;
  HostNumbers host_numbers(numbers, [this] { parts_.engine.throw_if_communication_failed(); });
  read_pending();  // the step before this one: the device is already at work on the next
  const StepClock::Seconds phases = board_->clock().take();
  pace_meter_.add(phases);
  pending_ = Pending{.step = state.step,
                     .numbers = std::move(numbers),
                     .host_numbers = std::move(host_numbers),
                     .learning_rate = learning_rate,
                     .tokens_seen = state.tokens_seen,
                     .target_tokens = batch.agreement.target_tokens,
                     .step_time_s = seconds_since_last_step(),
                     .phases = phases,
                     .bounds = bounds,
                     .fp8_counts = fp8_counts_at(state.step)};
  if (!first_step_said_) read_pending();  // so that the first line comes at once
  say_how_steps_run();
}

// Every rank knows the global batch's targets, so every rank passes it over. The parameters stay,
// without decay or moments moving: there is no gradient.
void Trainer::pass_over(checkpoint::TrainState& state) {
  read_pending();
  const double learning_rate = schedule_.learning_rate(state.step);
  state.step += 1;
  begin_step_time();
  if (++passed_over_ == 1 && parts_.session.rank() == 0)
    parts_.log.warn(cat("step ", state.step,
                        " passed over: its global batch holds no target; further ones are only "
                        "counted (\"skipped\" in metrics.jsonl)"));
  record_skipped(state.step, kNoTargets, learning_rate, state.tokens_seen);
}

void Trainer::audit_if_due(int64_t step) {
  if (!due(step, parts_.config.run.logging.audit_steps)) return;
  board_->enter("audit of the parameters", step);
  audit_parameters(parts_.engine.state(), parts_.session, step);
  const PaceReport report = pace_meter_.report(parts_.session);
  if (parts_.session.rank() != 0 || report.line.empty()) return;
  parts_.log.info(report.line);
  for (const std::string& warning : report.warnings) parts_.log.warn(warning);
}

Trainer::Batch Trainer::next_batch(int64_t step) {
  const data::BatchShape& shape = parts_.train_data.shape();
  Batch batch;
  board_->enter("reading the batch", step + 1, step_patience());
  std::vector<data::HostBatch> on_host;
  const auto read = [&](StepReport& report) {
    const StepClock::In phase(&board_->clock(), StepPhase::data);
    for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
      const data::HostBatch& host = on_host.emplace_back(parts_.train_data.micro_batch(
          step + parts_.guard.passed_over(), parts_.mesh.dp_rank(), micro));
      report.token_hash = report.token_hash * 0x9E3779B97F4A7C15ull + host.hash();  // order matters
      report.target_tokens += host.target_tokens();
      report.most_documents = std::max(report.most_documents, host.documents());
    }
    board_->enter("agreeing on the batch with the other ranks", step + 1, step_patience());
  };
  using Progress = checkpoint::CheckpointStore::Progress;
  const Progress save = saver_.progress();
  {
    const StepClock::In phase(&board_->clock(), StepPhase::communication);
    batch.agreement = read_and_agree(parts_.session, parts_.mesh, step + 1,
                                     {.stop_requested = stop_wanted(),
                                      .save_step_done = save == Progress::done,
                                      .save_failed = save == Progress::failed},
                                     read);
  }
  if (batch.agreement.target_tokens == 0) return batch;
  const StepClock::In phase(&board_->clock(), StepPhase::data);
  for (const data::HostBatch& host : on_host)
    batch.micro_batches.push_back(
        to_device(host, parts_.engine.device(), batch.agreement.most_documents));
  return batch;
}

// Nothing where data.eval could not be read: on all ranks alike.
std::optional<Evaluation::Result> Trainer::try_evaluation(int64_t step) {
  try {
    return parts_.evaluation->run(
        parts_.engine, [this] { return stop_wanted(); }, step);
  } catch (const Error& error) {
    // Of a device or a peer that failed nobody knows what the others do: such an error ends the
    // run.
    if (!error.agreed() || error.code() != ExitCode::data) throw;
    if (failed_evaluations_.note(error.what()) && parts_.session.rank() == 0)
      parts_.log.warn(
          cat("the evaluation at step ", step, " failed, the training goes on: ", error.what()));
    return std::nullopt;
  }
}

std::optional<double> Trainer::evaluate(int64_t step) {
  if (parts_.evaluation == nullptr) return std::nullopt;
  board_->enter("evaluation", step);
  const std::optional<Evaluation::Result> result = try_evaluation(step);
  begin_step_time();  // evaluation is no part of a step's time
  if (!result) return std::nullopt;
  if (result->stopped) {
    stopped_in_evaluation_ = true;
    return std::nullopt;
  }
  parts_.best_loss.add(step, result->loss);
  if (parts_.recorder != nullptr) {
    const metrics::EvalMetrics metrics{.step = step,
                                       .loss = result->loss,
                                       .target_tokens = result->target_tokens,
                                       .sets = result->sets,
                                       .time = seconds_since_1970()};
    parts_.recorder->eval(metrics);
    parts_.log.info(cat("step ", step, "  eval_loss ", fixed(metrics.loss, 4), "  perplexity ",
                        fixed(metrics.perplexity(), 2), "  ", with_thousands(metrics.target_tokens),
                        " tokens"));
    for (const metrics::EvalOfSet& set : result->sets)
      parts_.log.info(cat("step ", step, "  eval_loss of ", set.name, " ", fixed(set.loss, 4), "  ",
                          with_thousands(set.target_tokens), " tokens"));
  }
  return result->loss;
}

double Trainer::step_patience() const {
  constexpr double kOfMicroBatch = 0.05;
  return 1 + kOfMicroBatch * static_cast<double>(parts_.config.batch.accumulation - 1);
}

// One rank's word is enough, and rank 0's clock decides: the ranks tell one another.
bool Trainer::stop_wanted() {
  if (stop_requested()) return true;
  // A start that does no step would be started again for ever.
  if (parts_.session.rank() != 0 || !first_step_said_) return false;
  // Of the one that is under way the end is waited for.
  const double save_s =
      saver_.last_save_s().value_or(guessed_save_s_) * (saver_.is_saving() ? 2 : 1);
  if (!time_is_up_ &&
      parts_.time_limit.is_up(std::chrono::system_clock::now(), pace_.seconds_a_step(), save_s)) {
    time_is_up_ = true;
    parts_.log.info(cat("stopping: ", parts_.time_limit.reason(), " is near"));
  }
  return time_is_up_;
}

double Trainer::epoch_at(int64_t step) const {
  return static_cast<double>(step + parts_.guard.passed_over()) *
         static_cast<double>(parts_.config.batch.global_batch_size()) /
         static_cast<double>(parts_.train_data.windows());
}

std::vector<metrics::SourceProgress> Trainer::sources_at(int64_t step) const {
  std::vector<metrics::SourceProgress> sources;
  for (const auto& one : parts_.train_data.progress((step + parts_.guard.passed_over()) *
                                                    parts_.config.batch.global_batch_size()))
    sources.push_back({.name = one.name, .sequences = one.sequences, .epoch = one.epoch});
  return sources;
}

// From hand-over to hand-over: on a GPU the host waits for step s - 1 before it hands over s + 1,
// so this is the device's pace where the device is the slower.
double Trainer::seconds_since_last_step() {
  const auto now = std::chrono::steady_clock::now();
  return seconds_between(std::exchange(last_issued_, now), now);
}

void Trainer::begin_step_time() {
  last_issued_ = std::chrono::steady_clock::now();
  board_->clock().take();
}

void Trainer::say_first_step() {
  if (std::exchange(first_step_said_, true)) return;
  parts_.log.info(
      cat("first step done ",
          fixed(seconds_between(parts_.process_start, std::chrono::steady_clock::now()), 2),
          " s after process start"));
}

// Once, when it is known: where graphs are possible, some steps of either way are measured first.
void Trainer::say_how_steps_run() {
  const std::string& how = parts_.engine.how_steps_run();
  if (how.empty() || !parts_.engine.device().is_cuda()) return;
  if (!std::exchange(how_steps_run_said_, true)) parts_.log.info(cat("steps are ", how));
}

std::vector<std::string> Trainer::failures() const {
  std::vector<std::string> lines;
  if (parts_.recorder != nullptr) lines = parts_.recorder->failures();
  if (failed_evaluations_.count() > 0 && parts_.session.rank() == 0)
    lines.push_back(cat("evaluations that failed: ", failed_evaluations_.count(),
                        ", the last with ", failed_evaluations_.last_reason()));
  return lines;
}

}  // namespace tptrain::train
