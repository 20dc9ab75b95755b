#include "train/evaluation.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/interruption.h"
#include "base/text.h"
#include "base/work.h"
#include "formats/token_file.h"
#include "train/micro_batch.h"
#include "train/step_exchange.h"

namespace tptrain::train {

Evaluation::Evaluation(const std::vector<TrainingData::EvalSet>& sets, int64_t most_sequences,
                       comm::MpiSession& session, comm::DeviceMesh& mesh)
    : session_(session), mesh_(mesh) {
  for (const TrainingData::EvalSet& set : sets) {
    int64_t sequences = set.text.windows();
    if (most_sequences > 0) sequences = std::min(sequences, most_sequences);
    sets_.push_back({.text = set.text, .name = set.name, .sequences = sequences});
    count_targets(sets_.back());
  }
}

// Documents of their own lengths have fewer targets than positions: counted before the forward,
// each dp rank's once.
void Evaluation::count_targets(Set& set) {
  int64_t own = 0;
  comm::agree(
      session_,
      [&] {
        for (int64_t round = 0; round < rounds(set); ++round) {
          interruption_point();
          own += batch(set, round).target_tokens();
        }
      },
      OnStop::give_up);
  set.target_tokens = session_.sum(mesh_.tp_rank() == 0 ? own : 0);
  if (set.target_tokens > 0) return;
  DataError error(
      problem("not a single token to predict within train.seq_length")
          .at(set.name.empty() ? "data.eval" : cat("data.eval.", set.name))
          .must("hold at least one in the sequences of an evaluation (eval.max_batches)")
          .remedy("Check its labels (-100 says that a token is no target), raise "
                  "train.seq_length where they begin beyond it, or leave data.eval out."));
  error.set_agreed();
  throw error;
}

int64_t Evaluation::rounds(const Set& set) {
  const int64_t per_round = set.text.shape().global_batch_size();
  return (set.sequences + per_round - 1) / per_round;
}

// The sequences do not depend on the layout: what the last round holds beyond them is masked.
data::HostBatch Evaluation::batch(const Set& set, int64_t round) const {
  const data::BatchShape& shape = set.text.shape();
  data::HostBatch host = set.text.micro_batch(round, mesh_.dp_rank(), 0);
  const int64_t first =
      round * shape.global_batch_size() + mesh_.dp_rank() * shape.micro_batch_size;
  for (int64_t row = 0; row < host.batch; ++row) {
    if (first + row < set.sequences) continue;
    std::fill_n(host.targets.begin() + row * host.seq_length, host.seq_length, formats::kNoLabel);
  }
  return host;
}

std::optional<double> Evaluation::loss_of(const Set& set, Engine& engine,
                                          const std::function<bool()>& stop_wanted, int64_t step) {
  double loss = 0;
  for (int64_t round = 0; round < rounds(set); ++round) {
    data::HostBatch host;
    const StepAgreement agreement = read_and_agree(
        session_, mesh_, step, {.stop_requested = stop_wanted()}, [&](StepReport& report) {
          host = batch(set, round);
          report.token_hash = host.hash();
        });
    if (agreement.stop_requested) return std::nullopt;
    loss += engine.evaluate({to_device(host, engine.device())}, set.target_tokens).item<float>();
    session_.board()->advance();
    work_done(WorkUnit::parts, 1);
  }
  return loss;
}

Evaluation::Result Evaluation::run(Engine& engine, const std::function<bool()>& stop_wanted,
                                   int64_t step) {
  int64_t all_rounds = 0;
  for (const Set& set : sets_) all_rounds += rounds(set);
  const Work work("evaluating", WorkUnit::parts, all_rounds);
  Result result;
  double sum = 0;  // over target tokens
  for (const Set& set : sets_) {
    const std::optional<double> loss = loss_of(set, engine, stop_wanted, step);
    if (!loss) {
      result.stopped = true;
      return result;
    }
    sum += *loss * static_cast<double>(set.target_tokens);
    result.target_tokens += set.target_tokens;
    if (!set.name.empty())
      result.sets.push_back({.name = set.name, .loss = *loss, .target_tokens = set.target_tokens});
    if (sets_.size() == 1) result.loss = *loss;  // not by way of the sum, which would round it
  }
  if (sets_.size() > 1) result.loss = sum / static_cast<double>(result.target_tokens);
  return result;
}

}  // namespace tptrain::train
