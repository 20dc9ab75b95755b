#include "planner/plan.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "comm/communicator.h"
#include "model/decoder.h"

namespace tptrain::planner {

namespace {

using sharding::Parameter;
using sharding::Placement;

constexpr int64_t kFp32Bytes = 4;

void check_layout(const model::DecoderConfig& config, const Layout& layout) {
  std::vector<Problem> problems;
  const auto positive = [&](const char* key, int64_t value) {
    if (value < 1) problems.push_back(problem(cat(key, " is ", value)).must("be at least 1"));
  };
  positive("tp_size", layout.tp_size);
  positive("dp_size", layout.dp_size);
  positive("seq_length", layout.seq_length);
  positive("micro_batch_size", layout.micro_batch_size);
  if (layout.zero_stage != 0 && layout.zero_stage != 1) {
    problems.push_back(problem(cat("zero_stage is ", layout.zero_stage)).must("be 0 or 1"));
  }
  if (layout.tp_size >= 1) {
    for (Problem& p : model::check_tp_size(config, layout.tp_size))
      problems.push_back(std::move(p));
  }
  if (!problems.empty()) throw ConfigError(problems);
}

/// What the bucket of `placement` takes on each dp rank: the sum, padded to a multiple of dp
/// (zero/param_buckets.h).
int64_t bucket_numel(const sharding::ParameterBlock& block, Placement placement, int64_t dp_size) {
  int64_t numel = 0;
  for (const Parameter* parameter : block.parameters) {
    if (parameter->placement == placement) numel += parameter->numel();
  }
  return (numel + dp_size - 1) / dp_size * dp_size;
}

/// Adds what tp rank `rank` holds; the first rank brings the order.
void add_rank(std::vector<TensorPlan>& tensors, std::map<std::string, size_t>& index_of,
              const model::Decoder& decoder, size_t rank) {
  for (const Parameter* parameter : decoder.parameters()) {
    for (const sharding::NamedSlice& slice : parameter->slices) {
      const auto [entry, is_new] = index_of.try_emplace(slice.spec.name, tensors.size());
      if (is_new) {
        tensors.push_back({.name = slice.spec.name,
                           .global_shape = slice.spec.global_shape,
                           .role = parameter->role,
                           .local_shapes = {}});
      }
      TensorPlan& tensor = tensors[entry->second];
      tensor.local_shapes.resize(rank + 1);
      tensor.local_shapes[rank] = slice.spec.local_shape();
    }
  }
}

int64_t activation_bytes(const model::DecoderConfig& c, const Layout& layout) {
  const int64_t tp = layout.tp_size;
  const int64_t tokens = layout.seq_length * layout.micro_batch_size;
  const int64_t norm = 2 * c.hidden_size + 1;  // sum, output, inverse rms
  const int64_t attention = ((2 * c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim +
                             c.num_attention_heads) /
                            tp;
  const int64_t mlp = 3 * c.intermediate_size / tp;
  const int64_t layer = 2 * norm + attention + mlp;
  const int64_t head = norm + c.vocab_size / tp + 2;
  return kFp32Bytes * tokens * (c.num_hidden_layers * layer + head);
}

Communication communication_of(const model::DecoderConfig& c, const Layout& layout,
                               int64_t allocated) {
  Communication result;
  if (layout.tp_size > 1) {
    const int64_t tokens = layout.seq_length * layout.micro_batch_size;
    const int64_t on_hidden = 4 * c.num_hidden_layers + 2;
    result.tp_all_reduces_per_micro_batch = on_hidden + 2;
    result.tp_all_reduce_bytes_per_micro_batch =
        kFp32Bytes * tokens * (on_hidden * c.hidden_size + 3);
  }
  if (layout.dp_size > 1) {
    result.dp_reduce_scatter_bytes_per_step = kFp32Bytes * allocated;
    result.dp_all_gather_bytes_per_step = kFp32Bytes * allocated;
  }
  return result;
}

}  // namespace

int64_t TensorPlan::global_numel() const {
  int64_t numel = 1;
  for (const int64_t size : global_shape) numel *= size;
  return numel;
}

Plan make_plan(const model::DecoderConfig& config, const Layout& layout) {
  check_layout(config, layout);
  Plan plan;
  plan.config = config;
  plan.layout = layout;

  std::map<std::string, size_t> index_of;
  for (int64_t rank = 0; rank < layout.tp_size; ++rank) {
    const auto tp =
        comm::planning_communicator("tp", static_cast<int>(rank), static_cast<int>(layout.tp_size));
    const model::Decoder decoder(config, *tp);
    add_rank(plan.tensors, index_of, decoder, static_cast<size_t>(rank));
    int64_t parameters = 0;
    for (const Parameter* parameter : decoder.parameters()) parameters += parameter->numel();
    int64_t allocated = 0;
    for (const sharding::ParameterBlock& block : decoder.blocks()) {
      allocated += bucket_numel(block, Placement::tp_sharded, layout.dp_size);
      allocated += bucket_numel(block, Placement::tp_replicated, layout.dp_size);
    }
    plan.parameters_per_rank = std::max(plan.parameters_per_rank, parameters);
    plan.allocated_per_rank = std::max(plan.allocated_per_rank, allocated);
  }
  for (const TensorPlan& tensor : plan.tensors) plan.parameters += tensor.global_numel();

  const int64_t moments_held =
      layout.zero_stage == 0 ? plan.allocated_per_rank : plan.allocated_per_rank / layout.dp_size;
  plan.memory = {.parameters = kFp32Bytes * plan.allocated_per_rank,
                 .gradients = kFp32Bytes * plan.allocated_per_rank,
                 .optimizer = 2 * kFp32Bytes * moments_held,
                 .activations = activation_bytes(config, layout)};
  plan.communication = communication_of(config, layout, plan.allocated_per_rank);
  plan.checkpoint_bytes = 3 * kFp32Bytes * plan.parameters;
  return plan;
}

namespace {

constexpr std::string_view kLayerPrefix = "model.layers.";

/// "model.layers.3.mlp.x" -> 3 and "mlp.x"; layer -1 where the name is none of a layer.
struct LayerName {
  int64_t layer = -1;
  std::string rest;
};
LayerName layer_name(const std::string& name) {
  if (!name.starts_with(kLayerPrefix)) return {.layer = -1, .rest = name};
  const size_t digits = kLayerPrefix.size();
  const size_t dot = name.find('.', digits);
  return {.layer = std::stoll(name.substr(digits, dot - digits)), .rest = name.substr(dot + 1)};
}

bool alike(const TensorPlan& a, const TensorPlan& b) {
  return a.global_shape == b.global_shape && a.role == b.role && a.local_shapes == b.local_shapes;
}

}  // namespace

std::vector<TensorGroup> fold_layers(const std::vector<TensorPlan>& tensors) {
  std::vector<TensorGroup> groups;
  std::map<std::string, size_t> open;  // rest of the name -> the group that its next layer may join
  for (const TensorPlan& tensor : tensors) {
    const LayerName name = layer_name(tensor.name);
    const auto found = name.layer < 0 ? open.end() : open.find(name.rest);
    if (found != open.end()) {
      TensorGroup& group = groups[found->second];
      const int64_t next_layer = layer_name(group.tensor.name).layer + group.count;
      if (name.layer == next_layer && alike(group.tensor, tensor)) {
        ++group.count;
        continue;
      }
    }
    if (name.layer >= 0) open[name.rest] = groups.size();
    groups.push_back({.name = tensor.name, .tensor = tensor, .count = 1});
  }
  for (TensorGroup& group : groups) {
    if (group.count == 1) continue;
    const LayerName first = layer_name(group.tensor.name);
    group.name =
        cat(kLayerPrefix, "{", first.layer, "..", first.layer + group.count - 1, "}.", first.rest);
  }
  return groups;
}

}  // namespace tptrain::planner
