#include "train/trainer.h"

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "model/decoder_config.h"
#include "train/device_facts.h"
#include "train/health.h"

namespace tptrain::train {
namespace {

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Of steps without an update. A run that skips for longer is not having bad luck with a batch: its
// parameters are beyond repair, and it would go on for nothing.
constexpr int64_t kMostSkippedInARow = 10;

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(const TrainerParts& parts)
    : parts_(parts),
      board_(parts.session.board()),
      schedule_(parts.config.run.scheduler, parts.config.run.optimizer.learning_rate,
                parts.config.run.train.max_steps),
      last_issued_(std::chrono::steady_clock::now()) {}

RunOutcome Trainer::run(checkpoint::TrainState state) {
  const config::RunConfig& run = parts_.config.run;
  RunOutcome outcome;
  bool saved_here = false;
  if (state.step == 0 && parts_.eval_data != nullptr && run.eval.every_steps > 0) evaluate(0);
  last_issued_ = std::chrono::steady_clock::now();

  while (state.step < run.train.max_steps) {
    Batch batch = next_batch(state.step);
    if (batch.agreement.stop_requested) {
      outcome.stopped_on_request = true;
      break;
    }
    if (due(state.step + 1, run.logging.audit_steps)) {
      board_->enter("audit of the parameters", state.step + 1);
      audit_parameters(parts_.engine.zero(), parts_.session, state.step + 1);
    }
    board_->enter("forward and backward", state.step + 1, step_patience());
    const double learning_rate = schedule_.learning_rate(state.step);
    zero::StepNumbers numbers =
        parts_.engine.step(batch.micro_batches, batch.agreement.target_tokens, learning_rate,
                           run.optimizer.max_grad_norm);
    state.step += 1;
    state.tokens_seen += batch.agreement.target_tokens;
    HostNumbers host_numbers(numbers);
    read_pending();  // the step before this one: the device is already at work on the next
    pending_ = Pending{.step = state.step,
                       .numbers = std::move(numbers),
                       .host_numbers = std::move(host_numbers),
                       .learning_rate = learning_rate,
                       .tokens_seen = state.tokens_seen,
                       .target_tokens = batch.agreement.target_tokens,
                       .issued = std::chrono::steady_clock::now()};
    if (!first_step_said_) read_pending();  // so that the first line comes at once
    say_how_steps_run();

    const bool last = state.step == run.train.max_steps;
    if (parts_.eval_data != nullptr && (due(state.step, run.eval.every_steps) || last)) {
      read_pending();
      outcome.eval_loss = evaluate(state.step);
    }
    saved_here = false;
    if (due(state.step, run.checkpoint.save_steps) || last) {
      read_pending();  // a checkpoint never commits before its step's finite flag is read
      outcome.last_checkpoint = save(state);
      saved_here = true;
    }
  }
  read_pending();
  if (outcome.stopped_on_request && !saved_here) outcome.last_checkpoint = save(state);
  outcome.state = state;
  return outcome;
}

Trainer::Batch Trainer::next_batch(int64_t step) {
  const data::BatchShape& shape = parts_.train_data.shape();
  Batch batch;
  board_->enter("reading the batch", step + 1, step_patience());
  StepReport report{.stop_requested = parts_.stop.requested()};
  std::vector<data::HostBatch> on_host;
  for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
    const data::HostBatch& host =
        on_host.emplace_back(parts_.train_data.micro_batch(step, parts_.mesh.dp_rank(), micro));
    report.token_hash = report.token_hash * 0x9E3779B97F4A7C15ull + host.hash();  // order matters
    report.target_tokens += host.target_tokens();
    report.most_documents = std::max(report.most_documents, host.documents());
  }
  board_->enter("agreeing on the batch with the other ranks", step + 1, step_patience());
  batch.agreement = agree_on_step(gather_step_reports(parts_.session, parts_.mesh, report),
                                  parts_.config.mesh, step + 1);
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
      describe_nonfinite(parts_.engine.zero(), pending.numbers, parts_.session);
  const Problem what =
      problem(cat("loss ", loss, " and gradient norm ", norm, " (first seen on ", culprits, ")"))
          .at(cat("step ", pending.step))
          .must("be finite");
  if (parts_.config.run.train.nonfinite == "skip" && skipped_in_a_row_ < kMostSkippedInARow) {
    if (parts_.session.rank() == 0)
      parts_.log.warn(cat("step ", pending.step,
                          " skipped, its update was not applied on any rank: ", what.received));
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

void Trainer::publish(const Pending& pending, double loss, double norm) {
  // From hand-over to hand-over: on a GPU the host waits for step s - 1 before it hands over s + 1,
  // so this is the device's pace where the device is the slower.
  const auto now = pending.issued;
  const double step_time_s = seconds_between(last_issued_, now);
  last_issued_ = now;
  if (!first_step_said_) {
    first_step_said_ = true;
    log_line(cat("first step done ",
                 fixed(seconds_between(parts_.process_start, std::chrono::steady_clock::now()), 2),
                 " s after process start"));
  }
  if (parts_.jsonl == nullptr) return;

  const MemoryUse memory = memory_use(parts_.engine.device());
  const int ranks = parts_.session.size();
  metrics::StepMetrics step{
      .step = pending.step,
      .loss = loss,
      .grad_norm = norm,
      .lr = pending.learning_rate,
      .tokens_seen = pending.tokens_seen,
      .step_time_s = step_time_s,
      .tokens_per_second = static_cast<double>(pending.target_tokens) / step_time_s,
      .peak_memory_bytes = memory.peak_bytes};
  step.tokens_per_second_per_rank = step.tokens_per_second / ranks;
  const double flops =
      model::flops_per_token(parts_.config.decoder, parts_.config.run.train.seq_length) *
      step.tokens_per_second_per_rank;
  step.tflops = flops / 1e12;
  const at::ScalarType dtype = parts_.config.run.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  if (const auto peak = peak_flops(parts_.engine.device(), dtype)) step.mfu = flops / *peak;
  step.memory_fraction = memory.total_bytes > 0 ? static_cast<double>(memory.peak_bytes) /
                                                      static_cast<double>(memory.total_bytes)
                                                : 0.0;

  if (due(pending.step, parts_.config.run.logging.every_steps)) {
    parts_.jsonl->step(step);
    log_line(metrics::console_line(step));
  }
  parts_.progress->update(step);
}

double Trainer::evaluate(int64_t step) {
  const data::BatchSampler& sampler = *parts_.eval_data;
  const data::BatchShape& shape = sampler.shape();
  // The sequences do not depend on the layout: the first ones of data.eval, as many as max_batches
  // training batches hold; the tail is masked.
  int64_t sequences = sampler.windows();
  if (parts_.config.run.eval.max_batches > 0)
    sequences = std::min(
        sequences, parts_.config.run.eval.max_batches * parts_.config.batch.global_batch_size());
  const int64_t per_round = shape.global_batch_size();
  const auto batch_of_round = [&](int64_t round) {
    data::HostBatch host = sampler.micro_batch(round, parts_.mesh.dp_rank(), 0);
    const int64_t first = round * per_round + parts_.mesh.dp_rank() * shape.micro_batch_size;
    for (int64_t b = 0; b < host.batch; ++b) {
      if (first + b < sequences) continue;
      std::fill_n(host.targets.begin() + b * host.seq_length, host.seq_length, int64_t{-100});
    }
    return host;
  };
  // Documents of their own lengths have fewer targets than positions: counted before the forward,
  // each dp rank's once.
  if (eval_target_tokens_ == 0) {
    int64_t own = 0;
    for (int64_t round = 0; round * per_round < sequences; ++round)
      own += batch_of_round(round).target_tokens();
    eval_target_tokens_ = parts_.session.sum(parts_.mesh.tp_rank() == 0 ? own : 0);
  }
  if (eval_target_tokens_ == 0) {
    DataError error(problem("not a single token to predict")
                        .at("data.eval")
                        .must("hold at least one")
                        .remedy("Check its labels: -100 says that a token is no target."));
    error.set_agreed();
    throw error;
  }
  const int64_t target_tokens = eval_target_tokens_;

  double loss = 0;
  board_->enter("evaluation", step);
  for (int64_t round = 0; round * per_round < sequences; ++round) {
    loss += parts_.engine
                .evaluate({to_device(batch_of_round(round), parts_.engine.device())}, target_tokens)
                .item<float>();
    board_->advance();
  }
  if (parts_.jsonl != nullptr) {
    parts_.jsonl->eval(step, loss, target_tokens);
    log_line(cat("step: ", step, "  eval_loss: ", fixed(loss, 4),
                 "  perplexity: ", fixed(std::exp(loss), 2), "  (", with_thousands(target_tokens),
                 " tokens held out)"));
  }
  last_issued_ = std::chrono::steady_clock::now();  // evaluation is no part of a step's time
  return loss;
}

checkpoint::CheckpointInfo Trainer::save(const checkpoint::TrainState& state) {
  const auto begin = std::chrono::steady_clock::now();
  board_->enter("writing a checkpoint", state.step, patience::kFiles);
  checkpoint::TrainState now = state;
  now.updates_done = parts_.engine.zero().updates_done();
  const checkpoint::CheckpointInfo info = parts_.store.save(parts_.engine.zero().state_dict(), now);
  for (const std::string& line : parts_.store.retention_problems()) parts_.log.warn(line);
  log_line(cat("checkpoint: ", info.path.string(), " committed in ",
               fixed(seconds_between(begin, std::chrono::steady_clock::now()), 2), " s"));
  last_issued_ = std::chrono::steady_clock::now();
  return info;
}

double Trainer::step_patience() const {
  constexpr double kOfMicroBatch = 0.05;
  return patience::kUsual +
         kOfMicroBatch * static_cast<double>(parts_.config.batch.accumulation - 1);
}

// Once, when it is known: where graphs are possible, some steps of either way are measured first.
void Trainer::say_how_steps_run() {
  const std::string& how = parts_.engine.how_steps_run();
  if (how.empty() || !parts_.engine.device().is_cuda()) return;
  if (!std::exchange(how_steps_run_said_, true)) log_line(cat("steps are ", how));
}

void Trainer::log_line(const std::string& line) {
  if (parts_.progress != nullptr) parts_.progress->clear();
  parts_.log.info(line);
}

}  // namespace tptrain::train
