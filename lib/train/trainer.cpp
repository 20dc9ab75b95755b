#include "train/trainer.h"

#include <cmath>

#include "base/error.h"
#include "base/stop.h"
#include "base/text.h"
#include "device/device_facts.h"
#include "model/decoder_config.h"
#include "train/health.h"
#include "train/run_options.h"

namespace tptrain::train {
namespace {

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Of steps without an update. A run that skips for longer is not having bad luck with a batch: its
// parameters are beyond repair, and it would go on for nothing.
constexpr int64_t kMostSkippedInARow = 10;

// A line of the log with its month, day and time in 80 columns.
constexpr int kStepLineWidth = 65;

constexpr double kSlowDisk = 200e6;  // bytes a second

constexpr std::string_view kNonfinite = "nonfinite";
constexpr std::string_view kNoTargets = "no_targets";

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

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
                      kSlowDisk) {}

Trainer::~Trainer() { parts_.engine.state().call_before_update({}); }

RunOutcome Trainer::run_steps(checkpoint::TrainState state) {
  const config::RunConfig& run = parts_.config.run;
  RunOutcome outcome;
  bool saved_here = true;  // nothing to save before the first step of this process
  if (parts_.owes_evaluation) {
    outcome.eval_loss = evaluate(state.step);
    if (state.step > 0 && is_best(state.step)) name_best(state);  // it began at this checkpoint
  }
  last_issued_ = std::chrono::steady_clock::now();

  while (state.step < run.train.max_steps && !stopped_in_evaluation_ &&
         !parts_.best_loss.is_out_of_patience()) {
    const Batch batch = next_batch(state.step);
    if (batch.agreement.save_step_done || batch.agreement.save_failed) {
      board_->enter("going on with a checkpoint", state.step);
      saver_.go_on(batch.agreement.save_failed);
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
  zero::StepNumbers numbers =
      parts_.engine.step(batch.micro_batches, batch.agreement.target_tokens, learning_rate,
                         parts_.config.run.optimizer.max_grad_norm);
  state.step += 1;
  state.tokens_seen += batch.agreement.target_tokens;
  HostNumbers host_numbers(numbers, [this] { parts_.engine.throw_if_communication_failed(); });
  read_pending();  // the step before this one: the device is already at work on the next
  pending_ = Pending{.step = state.step,
                     .numbers = std::move(numbers),
                     .host_numbers = std::move(host_numbers),
                     .learning_rate = learning_rate,
                     .tokens_seen = state.tokens_seen,
                     .target_tokens = batch.agreement.target_tokens,
                     .step_time_s = seconds_since_last_step()};
  if (!first_step_said_) read_pending();  // so that the first line comes at once
  say_how_steps_run();
}

// Every rank knows the global batch's targets, so every rank passes it over. The parameters stay,
// without decay or moments moving: there is no gradient.
void Trainer::pass_over(checkpoint::TrainState& state) {
  read_pending();
  const double learning_rate = schedule_.learning_rate(state.step);
  state.step += 1;
  seconds_since_last_step();
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
}

Trainer::Batch Trainer::next_batch(int64_t step) {
  const data::BatchShape& shape = parts_.train_data.shape();
  Batch batch;
  board_->enter("reading the batch", step + 1, step_patience());
  std::vector<data::HostBatch> on_host;
  const auto read = [&](StepReport& report) {
    for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
      const data::HostBatch& host =
          on_host.emplace_back(parts_.train_data.micro_batch(step, parts_.mesh.dp_rank(), micro));
      report.token_hash = report.token_hash * 0x9E3779B97F4A7C15ull + host.hash();  // order matters
      report.target_tokens += host.target_tokens();
      report.most_documents = std::max(report.most_documents, host.documents());
    }
    board_->enter("agreeing on the batch with the other ranks", step + 1, step_patience());
  };
  using Progress = checkpoint::CheckpointStore::Progress;
  const Progress save = saver_.progress();
  batch.agreement = read_and_agree(parts_.session, parts_.mesh, step + 1,
                                   {.stop_requested = stop_wanted(),
                                    .save_step_done = save == Progress::done,
                                    .save_failed = save == Progress::failed},
                                   read);
  if (batch.agreement.target_tokens == 0) return batch;
  for (const data::HostBatch& host : on_host)
    batch.micro_batches.push_back(
        to_device(host, parts_.engine.device(), batch.agreement.most_documents));
  return batch;
}

void Trainer::read_pending() {
  if (!pending_) return;
  const Pending pending = *std::exchange(pending_, std::nullopt);
  // Here the host waits until the device has done the step, however many it waits for: where a
  // collective hangs, this is where it shows.
  board_->enter("waiting for the device to finish it", pending.step, step_patience());
  const double loss = pending.host_numbers.loss();
  const double norm = pending.host_numbers.norm();
  board_->advance();
  if (!pending.host_numbers.finite()) {
    skip_or_stop(pending, loss, norm);
    return;
  }
  skipped_in_a_row_ = 0;
  publish(pending, loss, norm);
}

// The finite flag is the same on every rank: all skip, or throw, together.
void Trainer::skip_or_stop(const Pending& pending, double loss, double norm) {
  ++skipped_in_a_row_;
  const std::string culprits =
      describe_nonfinite(parts_.engine.buckets(), pending.numbers, parts_.session);
  const Problem what =
      problem(cat("loss ", loss, " and gradient norm ", norm, " (first seen on ", culprits, ")"))
          .at(cat("step ", pending.step))
          .must("be finite");
  if (parts_.config.run.train.nonfinite == config::Nonfinite::skip &&
      skipped_in_a_row_ < kMostSkippedInARow) {
    if (parts_.session.rank() == 0)
      parts_.log.warn(cat("step ", pending.step,
                          " skipped, its update was not applied on any rank: ", what.received));
    record_skipped(pending.step, kNonfinite, pending.learning_rate, pending.tokens_seen);
    return;
  }
  NumericsError error(Problem(what).remedy(
      cat(skipped_in_a_row_ > 1 ? cat(skipped_in_a_row_, " steps in a row were skipped. ") : "",
          "The update of this step was not applied on any rank. Lower "
          "optimizer.learning_rate, add scheduler.warmup_steps, or look at the "
          "data of this step; the run goes on from its last checkpoint.")));
  error.set_agreed();
  throw error;
}

void Trainer::record_skipped(int64_t step, std::string_view reason, double learning_rate,
                             int64_t tokens_seen) {
  say_first_step();
  if (parts_.recorder == nullptr) return;
  parts_.recorder->skipped({.step = step,
                            .reason = reason,
                            .lr = learning_rate,
                            .tokens_seen = tokens_seen,
                            .epoch = epoch_at(step),
                            .time = seconds_since_1970()});
}

void Trainer::publish(const Pending& pending, double loss, double norm) {
  say_first_step();
  if (parts_.recorder == nullptr) return;

  const device::MemoryUse memory = device::memory_use(parts_.engine.device());
  metrics::StepMetrics step{
      .step = pending.step,
      .loss = loss,
      .grad_norm = norm,
      .lr = pending.learning_rate,
      .tokens_seen = pending.tokens_seen,
      .epoch = epoch_at(pending.step),
      .sources = sources_at(pending.step),
      .time = seconds_since_1970(),
      .step_time_s = pending.step_time_s,
      .tokens_per_second = static_cast<double>(pending.target_tokens) / pending.step_time_s,
      .peak_memory_bytes = memory.peak_bytes};
  step.tokens_per_second_per_rank = step.tokens_per_second / parts_.session.size();
  const double flops = flops_of_token(parts_.config) * step.tokens_per_second_per_rank;
  step.tflops = flops / 1e12;
  const at::ScalarType dtype = scalar_type(parts_.config.run.train.dtype);
  if (const auto peak = device::peak_flops(parts_.engine.device(), dtype)) step.mfu = flops / *peak;

  pace_.add(step.step, step.step_time_s);
  const double eta_s = pace_.seconds_left();
  if (due(pending.step, parts_.config.run.logging.every_steps)) {
    add_fp8_counts(step);
    parts_.recorder->step(step);
    parts_.log.info(
        metrics::step_line(step, parts_.config.run.train.max_steps, eta_s, kStepLineWidth));
  }
  parts_.progress->update(step, eta_s);
}

void Trainer::add_fp8_counts(metrics::StepMetrics& step) {
  const tensor_parallel::Fp8Counters* counters = parts_.engine.fp8_counters();
  if (counters == nullptr) return;
  const auto now = counters->read();
  const auto before = std::exchange(fp8_counts_, now);
  const auto elements = static_cast<double>(now.elements - before.elements);
  if (elements > 0) step.fp8_flushed = static_cast<double>(now.flushed - before.flushed) / elements;
  step.fp8_saturated = now.saturated - before.saturated;
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
  last_issued_ = std::chrono::steady_clock::now();  // evaluation is no part of a step's time
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
  return static_cast<double>(step) * static_cast<double>(parts_.config.batch.global_batch_size()) /
         static_cast<double>(parts_.train_data.windows());
}

std::vector<metrics::SourceProgress> Trainer::sources_at(int64_t step) const {
  std::vector<metrics::SourceProgress> sources;
  for (const auto& one : parts_.train_data.progress(step * parts_.config.batch.global_batch_size()))
    sources.push_back({.name = one.name, .sequences = one.sequences, .epoch = one.epoch});
  return sources;
}

// From hand-over to hand-over: on a GPU the host waits for step s - 1 before it hands over s + 1,
// so this is the device's pace where the device is the slower.
double Trainer::seconds_since_last_step() {
  const auto now = std::chrono::steady_clock::now();
  return seconds_between(std::exchange(last_issued_, now), now);
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
