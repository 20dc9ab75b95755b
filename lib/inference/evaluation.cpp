#include "inference/evaluation.h"

#include <ATen/ops/ones.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "base/work.h"
#include "model/host_batch.h"
#include "tensor_parallel/block_observer.h"

namespace tptrain::inference {

namespace {

/// Parameters are whole and stay where they are.
class NothingToGather final : public tensor_parallel::BlockObserver {
 public:
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

struct Share {
  double loss_sum = 0;
  int64_t target_tokens = 0;
};

Share share_of(model::Decoder& decoder, const data::SequentialBatches& batches,
               const comm::DeviceMesh& mesh) {
  NothingToGather observer;
  const at::Tensor one = at::ones({}, at::TensorOptions().dtype(at::kFloat).device(mesh.device()));
  Share share;
  const Work work("evaluating", WorkUnit::parts, batches.rounds());
  for (int64_t round = 0; round < batches.rounds(); ++round) {
    const data::HostBatch host = batches.batch(round, mesh.dp_rank());
    const int64_t targets = host.target_tokens();
    if (targets == 0) continue;  // the same on every tp rank
    const model::TokenBatch batch = model::to_device(host, mesh.device());
    share.loss_sum += decoder.evaluate(batch, one, observer)[0].item<float>();
    share.target_tokens += targets;
    work_done(WorkUnit::parts, 1);
  }
  return share;
}

/// The shares of all dp ranks together, in their order.
Share sum_over_dp(const Share& own, const comm::DeviceMesh& mesh, comm::ControlGroup& ranks) {
  std::string message(sizeof own, '\0');
  std::memcpy(message.data(), &own, sizeof own);
  const std::vector<std::string> all = ranks.all_gather(message);
  Share sum;
  for (size_t rank = 0; rank < all.size(); rank += static_cast<size_t>(mesh.shape().tp_size)) {
    Share share;
    std::memcpy(&share, all[rank].data(), sizeof share);
    sum.loss_sum += share.loss_sum;
    sum.target_tokens += share.target_tokens;
  }
  return sum;
}

template <typename ErrorType>
[[noreturn]] void throw_on_all(Problem what) {
  ErrorType error(std::move(what));
  error.set_agreed();
  throw error;
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluation evaluate(model::Decoder& decoder, const data::SequentialBatches& batches,
                    const comm::DeviceMesh& mesh, comm::ControlGroup& ranks) {
  const Share sum = sum_over_dp(share_of(decoder, batches, mesh), mesh, ranks);
  if (sum.target_tokens == 0) {
    throw_on_all<DataError>(
        problem("the text has not a single token to predict")
            .must("have a document of two tokens, of which the second is labelled")
            .remedy("The first token of a document is not predicted, nor one of label -100."));
  }
  const Evaluation result = {.loss = sum.loss_sum / static_cast<double>(sum.target_tokens),
                             .target_tokens = sum.target_tokens};
  if (!std::isfinite(result.loss)) {
    throw_on_all<NumericsError>(
        problem(cat("the loss is ", result.loss))
            .must("be finite")
            .remedy("The weights are damaged or were trained beyond repair; with --dtype bf16, "
                    "try fp32."));
  }
  return result;
}

}  // namespace tptrain::inference
