// Trainer: the numbers of a step, one step behind the device: published, or what becomes of a step
// that had none that count.
#include "base/error.h"
#include "base/text.h"
#include "device/device_facts.h"
#include "train/cadence.h"
#include "train/health.h"
#include "train/run_options.h"
#include "train/trainer.h"
#include "train/wall_clock.h"

namespace tptrain::train {
namespace {

// Of steps without an update. A run that skips for longer is not having bad luck with a batch: its
// parameters are beyond repair, and it would go on for nothing.
constexpr int64_t kMostSkippedInARow = 10;

// A line of the log with its month, day and time in 80 columns.
constexpr int kStepLineWidth = 65;

constexpr std::string_view kNonfinite = "nonfinite";
constexpr std::string_view kOutlier = "outlier";

}  // namespace

Trainer::Numbers Trainer::read_numbers(const Pending& pending) {
  const bool waits = parts_.engine.device().is_cuda();
  const StepClock::In phase(&board_->clock(), waits ? StepPhase::device : StepPhase::other);
  return {.loss = pending.host_numbers.loss(), .norm = pending.host_numbers.norm()};
}

void Trainer::read_pending() {
  if (!pending_) return;
  const Pending pending = *std::exchange(pending_, std::nullopt);
  // Here the host waits until the device has done the step, however many it waits for: where a
  // collective hangs, this is where it shows.
  board_->enter("waiting for the device to finish it", pending.step, step_patience());
  const auto [loss, norm] = read_numbers(pending);
  board_->advance();
  if (!pending.host_numbers.finite()) {
    skip_or_stop(pending, loss, norm);
    return;
  }
  skipped_in_a_row_ = 0;
  if (!pending.host_numbers.applied()) {
    skip_or_roll_back(pending, loss, norm);
    return;
  }
  parts_.guard.add(pending.step, loss, norm);
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

// Whether a step was applied the device has decided, the same for every rank: all do this together.
void Trainer::skip_or_roll_back(const Pending& pending, double loss, double norm) {
  OutlierGuard& guard = parts_.guard;
  const bool goes_on = guard.count_outlier() && guard.action() != GuardAction::stop;
  const Problem what = problem(cat("loss ", loss, " and gradient norm ", norm, " beside the ",
                                   parts_.config.run.train.guard.window, " steps before"))
                           .at(cat("step ", pending.step))
                           .must(cat("be at most ", pending.bounds.loss, " and ",
                                     pending.bounds.norm, " (train.guard)"));
  if (!goes_on) {
    const bool too_many = guard.action() != GuardAction::stop;
    NumericsError error(Problem(what).remedy(
        cat("The update of this step was not applied on any rank. ",
            too_many
                ? cat("It is one more than the ", guard.limit(), " outliers of train.guard.limit. ")
                : std::string(),
            "Look at the data of this step, lower optimizer.learning_rate, or raise "
            "train.guard.threshold; the run goes on from its last checkpoint.")));
    error.set_agreed();
    throw error;
  }
  const bool has_checkpoint = last_checkpoint_ || parts_.begun_at || saver_.is_saving();
  if (guard.action() == GuardAction::rollback && has_checkpoint) throw Rollback{pending.step};
  if (parts_.session.rank() == 0)
    parts_.log.warn(cat(
        "step ", pending.step, " skipped, its update was not applied on any rank: ", what.received,
        ": it must ", what.constraint,
        guard.action() == GuardAction::rollback ? "; there is no checkpoint yet to go back to"
                                                : ""));
  record_skipped(pending.step, kOutlier, pending.learning_rate, pending.tokens_seen);
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
      .phases = pending.phases,
      .tokens_per_second = static_cast<double>(pending.target_tokens) / pending.step_time_s,
      .peak_memory_bytes = memory.peak_bytes};
  step.tokens_per_second_per_rank = step.tokens_per_second / parts_.session.size();
  const double flops = flops_of_token(parts_.config) * step.tokens_per_second_per_rank;
  step.tflops = flops / 1e12;
  const at::ScalarType dtype = scalar_type(parts_.config.run.train.dtype);
  if (const auto peak = device::peak_flops(parts_.engine.device(), dtype)) step.mfu = flops / *peak;

  pace_.add(step.step, step.step_time_s);
  const double eta_s = pace_.seconds_left();
  if (is_logged(pending.step)) {
    add_fp8_counts(step, pending);
    parts_.recorder->step(step);
    parts_.log.info(
        metrics::step_line(step, parts_.config.run.train.max_steps, eta_s, kStepLineWidth));
  }
  parts_.progress->update(step, eta_s);
}

bool Trainer::is_logged(int64_t step) const {
  const config::RunConfig& run = parts_.config.run;
  return due(step, run.logging.every_steps) || step == run.train.max_steps;
}

std::optional<tensor_parallel::Fp8Counters::Counts> Trainer::fp8_counts_at(int64_t step) const {
  const tensor_parallel::Fp8Counters* counters = parts_.engine.fp8_counters();
  if (counters == nullptr || !is_logged(step)) return std::nullopt;
  return counters->read();
}

void Trainer::add_fp8_counts(metrics::StepMetrics& step, const Pending& pending) {
  if (!pending.fp8_counts) return;
  const auto now = *pending.fp8_counts;
  const auto before = std::exchange(fp8_counts_, now);
  const auto elements = static_cast<double>(now.elements - before.elements);
  if (elements > 0) step.fp8_flushed = static_cast<double>(now.flushed - before.flushed) / elements;
  step.fp8_saturated = now.saturated - before.saturated;
}

}  // namespace tptrain::train
