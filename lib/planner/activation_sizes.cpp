#include "planner/activation_sizes.h"

#include <optional>

#include "model/adapter.h"
#include "tensor_parallel/partition.h"

namespace tptrain::planner {

bool pushes_over_tp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.tp_size > 1 && o.copies.tp != comm::PeerCopies::off;
}
bool pushes_over_dp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.dp_size > 1 && o.copies.dp != comm::PeerCopies::off;
}

namespace {

int64_t positions_of(const ActivationOptions& o) {
  return o.document_mask ? o.seq_length * o.micro_batch_size : o.seq_length;
}
int64_t batch_of(const ActivationOptions& o) { return o.document_mask ? 1 : o.micro_batch_size; }

model::LayerSizes layer_sizes(const model::DecoderConfig& config, const ActivationOptions& o) {
  const bool sliced =
      o.tp_size > 1 && o.training.sequence_parallel == tensor_parallel::SequenceParallel::on;
  std::optional<model::Adapters> adapters;
  if (o.training.adapter) adapters.emplace(config, *o.training.adapter);
  return {
      config, adapters ? &*adapters : nullptr, o.tp_rank, o.tp_size, positions_of(o), batch_of(o),
      sliced};
}

}  // namespace

Sizes::Sizes(const model::DecoderConfig& config, const ActivationOptions& o)
    : LayerSizes(layer_sizes(config, o)),
      element(o.bf16 ? 2 : 4),
      on_gpu(o.device == Device::cuda),
      masked(o.document_mask),
      longest(o.seq_length),
      positions(positions_of(o)),
      batch(batch_of(o)),
      padded_tokens(sliced ? slice_tokens * o.tp_size : tokens),
      learned_positions(config.positions == model::Positions::learned),
      vocab(tensor_parallel::share_of(config.vocab_size, o.tp_rank, o.tp_size).size()),
      cut_vocab(o.tp_size > 1),
      adapter_rank(o.training.adapter ? o.training.adapter->rank : 0),
      adapters_drop(o.training.adapter && o.training.adapter->dropout > 0) {
  using Type = model::LayerTensorSize::Type;
  for (const model::LayerTensorSize& made : model::layer_tensors(*this)) {
    const int64_t each = made.type == Type::compute ? element : made.type == Type::fp32 ? kFp32 : 1;
    bytes_[static_cast<size_t>(made.tensor)] = made.elements * each;
  }
}

}  // namespace tptrain::planner
