#include "model/layer_tensors.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>

#include "base/text.h"
#include "model/adapter.h"
#include "model/decoder.h"
#include "model/head_share.h"
#include "tensor_parallel/partition.h"

namespace tptrain::model {

namespace {

struct AdaptedLinear {
  const char* name;
  int64_t out;  // of this rank
};

// Every layer has the same.
LayerSizes::Adapter adapter_size(const Adapters& adapters,
                                 std::initializer_list<AdaptedLinear> linears) {
  std::map<std::string, int64_t> out_of;  // by the name of an A: linears may share one
  for (const AdaptedLinear& linear : linears) {
    const std::string& name = adapters.of(cat("model.layers.0.", linear.name));
    if (!name.empty()) out_of[name] += linear.out;
  }
  LayerSizes::Adapter result{.columns =
                                 static_cast<int64_t>(out_of.size()) * adapters.low_rank().rank};
  for (const auto& [name, out] : out_of) result.out = std::max(result.out, out);
  return result;
}

}  // namespace

LayerSizes::LayerSizes(const DecoderConfig& config, const Adapters* of_linears, int tp_rank,
                       int tp_size, int64_t positions, int64_t batch, bool sliced)
    : sliced(sliced),
      tokens(positions * batch),
      slice_tokens(sliced ? (positions + tp_size - 1) / tp_size * batch : tokens),
      hidden(config.hidden_size),
      head_dim(config.head_dim),
      statistics(config.norm == Norm::layer ? 2 : 1),
      ffn(tensor_parallel::share_of(config.intermediate_size, tp_rank, tp_size).size()) {
  const HeadShare share = head_share(config, tp_rank, tp_size);
  heads = share.heads.size();
  kv_heads = share.kv_heads.size();
  qkv = (heads + 2 * kv_heads) * head_dim;
  unnormed = config.qk_norm ? (heads + kv_heads) * head_dim : 0;
  context = heads * head_dim;
  up = config.feed_forward == FeedForward::swiglu ? 2 * ffn : ffn;
  if (of_linears == nullptr) return;
  const int64_t kv = kv_heads * head_dim;
  adapters = {.qkv = adapter_size(*of_linears, {{"self_attn.q_proj", context},
                                                {"self_attn.k_proj", kv},
                                                {"self_attn.v_proj", kv}}),
              .o = adapter_size(*of_linears, {{"self_attn.o_proj", hidden}}),
              .up = adapter_size(*of_linears, {{"mlp.gate_proj", ffn}, {"mlp.up_proj", ffn}}),
              .down = adapter_size(*of_linears, {{"mlp.down_proj", hidden}})};
}

bool stays(LayerTensor tensor, const LayerMemory& memory, bool sliced) {
  if (memory.recompute == Recompute::full) return tensor == LayerTensor::input;
  // Columns of a whole sequence in 8 bits, for a slice of it in 16: only where nothing is cut.
  const bool in_columns = memory.fp8 && memory.recompute == Recompute::none && !sliced;
  switch (tensor) {
    case LayerTensor::input:
      return false;
    case LayerTensor::attention_input:
    case LayerTensor::mlp_input:
    case LayerTensor::activation:  // no GEMM makes them
      return memory.recompute == Recompute::none && !in_columns;
    case LayerTensor::qkv_columns:
    case LayerTensor::up_columns:
    case LayerTensor::down_columns:
      return in_columns;
    case LayerTensor::logsumexp:
      return !memory.attention_dropout;
    default:
      return true;
  }
}

std::vector<LayerTensorSize> layer_tensors(const LayerSizes& s) {
  using enum LayerTensor;
  using Type = LayerTensorSize::Type;
  const int64_t outside = s.slice_tokens * s.hidden;
  const int64_t rows_of_columns = (s.tokens + 15) / 16 * 16;  // as FP8's products need them
  return {{attention_sum, outside},
          {attention_statistics, s.statistics * s.slice_tokens, Type::fp32},
          {attention_input, outside},
          {qkv_columns, rows_of_columns * s.hidden, Type::byte},
          {qkv, s.tokens * s.qkv},
          {unnormed, s.tokens * s.unnormed},
          {qkv_down, s.tokens * s.adapters.qkv.columns},
          {context, s.tokens * s.context},
          {logsumexp, s.tokens * s.heads, Type::fp32},
          {o_down, s.tokens * s.adapters.o.columns},
          {mlp_sum, outside},
          {mlp_statistics, s.statistics * s.slice_tokens, Type::fp32},
          {mlp_input, outside},
          {up_columns, rows_of_columns * s.hidden, Type::byte},
          {up, s.tokens * s.up},
          {up_down, s.tokens * s.adapters.up.columns},
          {activation, s.tokens * s.ffn},
          {down_columns, rows_of_columns * s.ffn, Type::byte},
          {down_down, s.tokens * s.adapters.down.columns}};
}

}  // namespace tptrain::model
