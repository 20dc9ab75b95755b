#include "planner/activation_sizes.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>

#include "base/text.h"
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

struct Linear {
  const char* name;
  int64_t out;  // of this rank
};

// Every layer has the same.
Sizes::Adapter adapter_of(const model::Adapters& adapters, std::initializer_list<Linear> linears) {
  std::map<std::string, int64_t> out_of;  // by the name of an A: linears may share one
  for (const Linear& linear : linears) {
    const std::string& name = adapters.of(cat("model.layers.0.", linear.name));
    if (!name.empty()) out_of[name] += linear.out;
  }
  Sizes::Adapter result{.columns = static_cast<int64_t>(out_of.size()) * adapters.low_rank().rank};
  for (const auto& [name, out] : out_of) result.out = std::max(result.out, out);
  return result;
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
  const model::Adapters of_linears(config, *o.training.adapter);
  const int64_t kv = kv_heads * head_dim;
  adapters = {.qkv = adapter_of(of_linears, {{"self_attn.q_proj", context},
                                             {"self_attn.k_proj", kv},
                                             {"self_attn.v_proj", kv}}),
              .o = adapter_of(of_linears, {{"self_attn.o_proj", hidden}}),
              .up = adapter_of(of_linears, {{"mlp.gate_proj", ffn}, {"mlp.up_proj", ffn}}),
              .down = adapter_of(of_linears, {{"mlp.down_proj", hidden}})};
  adapter_rank = o.training.adapter->rank;
  adapters_drop = o.training.adapter->dropout > 0;
}

}  // namespace tptrain::planner
