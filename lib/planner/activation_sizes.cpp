#include "planner/activation_sizes.h"

#include <initializer_list>
#include <set>
#include <string>

#include "model/adapter.h"
#include "model/head_share.h"
#include "tensor_parallel/partition.h"

namespace tptrain::planner {

bool pushes_over_tp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.tp_size > 1 && o.copies.tp != comm::PeerCopies::off;
}
bool pushes_over_dp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.dp_size > 1 && o.copies.dp != comm::PeerCopies::off;
}

namespace {

// Every layer has the same.
Sizes::Adapters adapter_columns(const model::DecoderConfig& config,
                                const config::AdapterConfig& adapter) {
  const model::Adapters adapters(config, adapter);
  const auto columns = [&](std::initializer_list<const char*> linears) {
    std::set<std::string> sites;
    for (const char* linear : linears)
      sites.insert(adapters.of(std::string("model.layers.0.") + linear));
    sites.erase("");
    return static_cast<int64_t>(sites.size()) * adapter.rank;
  };
  return {.qkv = columns({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}),
          .o = columns({"self_attn.o_proj"}),
          .up = columns({"mlp.gate_proj", "mlp.up_proj"}),
          .down = columns({"mlp.down_proj"})};
}

}  // namespace

Sizes::Sizes(const model::DecoderConfig& config, const ActivationOptions& o)
    : element(o.bf16 ? 2 : 4),
      on_gpu(o.device == Device::cuda),
      masked(o.document_mask),
      longest(o.seq_length),
      positions(masked ? o.seq_length * o.micro_batch_size : o.seq_length),
      batch(masked ? 1 : o.micro_batch_size),
      tokens(positions * batch),
      sliced(o.training.sequence_parallel == tensor_parallel::SequenceParallel::on &&
             o.tp_size > 1),
      slice_tokens(sliced ? (positions + o.tp_size - 1) / o.tp_size * batch : tokens),
      padded_tokens(sliced ? slice_tokens * o.tp_size : tokens),
      hidden(config.hidden_size),
      head_dim(config.head_dim),
      learned_positions(config.positions == model::Positions::learned),
      statistics(config.norm == model::Norm::layer ? 2 : 1),
      ffn(tensor_parallel::share_of(config.intermediate_size, o.tp_rank, o.tp_size).size()),
      vocab(tensor_parallel::share_of(config.vocab_size, o.tp_rank, o.tp_size).size()),
      cut_vocab(o.tp_size > 1) {
  const model::HeadShare share = model::head_share(config, o.tp_rank, o.tp_size);
  heads = share.heads.size();
  kv_heads = share.kv_heads.size();
  qkv = (heads + 2 * kv_heads) * head_dim;
  unnormed = config.qk_norm ? (heads + kv_heads) * head_dim : 0;
  up = config.feed_forward == model::FeedForward::swiglu ? 2 * ffn : ffn;
  context = heads * head_dim;
  if (!o.training.adapter) return;
  adapters = adapter_columns(config, *o.training.adapter);
  adapter_rank = o.training.adapter->rank;
  adapters_drop = o.training.adapter->dropout > 0;
}

}  // namespace tptrain::planner
