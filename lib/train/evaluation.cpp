#include "train/evaluation.h"

#include <algorithm>

#include "base/error.h"
#include "base/interruption.h"
#include "base/work.h"
#include "formats/token_file.h"
#include "train/micro_batch.h"
#include "train/step_exchange.h"

namespace tptrain::train {

Evaluation::Evaluation(const data::BatchSampler& text, int64_t most_sequences,
                       comm::MpiSession& session, comm::DeviceMesh& mesh)
    : text_(text), session_(session), mesh_(mesh), sequences_(text.windows()) {
  if (most_sequences > 0) sequences_ = std::min(sequences_, most_sequences);
  // Documents of their own lengths have fewer targets than positions: counted before the forward,
  // each dp rank's once.
  int64_t own = 0;
  comm::agree(
      session_,
      [&] {
        for (int64_t round = 0; round < rounds(); ++round) {
          interruption_point();
          own += batch(round).target_tokens();
        }
      },
      OnStop::give_up);
  target_tokens_ = session_.sum(mesh_.tp_rank() == 0 ? own : 0);
  if (target_tokens_ > 0) return;
  DataError error(
      problem("not a single token to predict within train.seq_length")
          .at("data.eval")
          .must("hold at least one in the sequences of an evaluation (eval.max_batches)")
          .remedy("Check its labels (-100 says that a token is no target), raise "
                  "train.seq_length where they begin beyond it, or leave data.eval out."));
  error.set_agreed();
  throw error;
}

int64_t Evaluation::rounds() const {
  const int64_t per_round = text_.shape().global_batch_size();
  return (sequences_ + per_round - 1) / per_round;
}

// The sequences do not depend on the layout: what the last round holds beyond them is masked.
data::HostBatch Evaluation::batch(int64_t round) const {
  const data::BatchShape& shape = text_.shape();
  data::HostBatch host = text_.micro_batch(round, mesh_.dp_rank(), 0);
  const int64_t first =
      round * shape.global_batch_size() + mesh_.dp_rank() * shape.micro_batch_size;
  for (int64_t row = 0; row < host.batch; ++row) {
    if (first + row < sequences_) continue;
    std::fill_n(host.targets.begin() + row * host.seq_length, host.seq_length, formats::kNoLabel);
  }
  return host;
}

Evaluation::Result Evaluation::run(Engine& engine, const std::function<bool()>& stop_wanted,
                                   int64_t step) {
  const Work work("evaluating", WorkUnit::parts, rounds());
  Result result{.target_tokens = target_tokens_};
  for (int64_t round = 0; round < rounds(); ++round) {
    data::HostBatch host;
    const StepAgreement agreement = read_and_agree(
        session_, mesh_, step, {.stop_requested = stop_wanted()}, [&](StepReport& report) {
          host = batch(round);
          report.token_hash = host.hash();
        });
    if (agreement.stop_requested) {
      result.stopped = true;
      return result;
    }
    result.loss +=
        engine.evaluate({to_device(host, engine.device())}, target_tokens_).item<float>();
    session_.board()->advance();
    work_done(WorkUnit::parts, 1);
  }
  return result;
}

}  // namespace tptrain::train
