#include "planner/plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "comm/communicator.h"
#include "model/decoder.h"
#include "optim/update_rule.h"
#include "planner/activations.h"
#include "planner/zero_layout.h"
#include "sharding/state_dict.h"
#include "tensor_parallel/nf4_base.h"
#include "zero/layout.h"
#include "zero/memory.h"

namespace tptrain::planner {

namespace {

using parameters::Parameter;

constexpr int64_t kFp32Bytes = 4;
constexpr int64_t kBf16Bytes = 2;
constexpr int64_t kMostSequences = 1 << 16;  // where largest_micro_batch stops to look

void check_layout(const model::DecoderConfig& config, const Layout& layout) {
  std::vector<Problem> problems;
  const auto positive = [&](const char* key, int64_t value) {
    if (value < 1) problems.push_back(problem(cat(key, " is ", value)).must("be at least 1"));
  };
  positive("tp_size", layout.tp_size);
  positive("dp_size", layout.dp_size);
  positive("seq_length", layout.seq_length);
  positive("micro_batch_size", layout.micro_batch_size);
  positive("micro_batches", layout.micro_batches);
  if (layout.zero_stage < 0 || layout.zero_stage >= kZeroStages) {
    problems.push_back(problem(cat("zero_stage is ", layout.zero_stage)).must("be 0, 1, 2 or 3"));
  }
  if (layout.tp_size >= 1) {
    for (Problem& p : model::check_tp_size(config, layout.tp_size))
      problems.push_back(std::move(p));
  }
  if (!problems.empty()) throw ConfigError(problems);
}

const optim::UpdateRule& rule_of(const Layout& layout) {
  return optim::update_rule(layout.update_rule);
}

/// Adds what tp rank `rank` holds; the first rank brings the order.
void add_rank(const optim::UpdateRule& rule, std::vector<TensorPlan>& tensors,
              std::map<std::string, size_t>& index_of, const model::Decoder& decoder, size_t rank) {
  std::vector<Parameter*> all = decoder.parameters();
  const std::vector<Parameter*>& packed = decoder.packed_parameters();
  all.insert(all.end(), packed.begin(), packed.end());
  for (const Parameter* parameter : all) {
    for (const parameters::NamedSlice& slice : parameter->slices) {
      const auto [entry, is_new] = index_of.try_emplace(slice.spec.name, tensors.size());
      if (is_new) {
        tensors.push_back({.name = slice.spec.name,
                           .global_shape = slice.spec.global_shape,
                           .role = parameter->role,
                           .trains = parameter->trains,
                           .unit = parameter->trains ? rule.unit(*parameter) : optim::Unit::element,
                           .local_shapes = {}});
      }
      TensorPlan& tensor = tensors[entry->second];
      tensor.local_shapes.resize(rank + 1);
      tensor.local_shapes[rank] = slice.spec.local_shape();
    }
  }
}

/// Of what trains.
bool keeps_bf16(const zero::StateLayout& layout) {
  for (const optim::Unit unit : {optim::Unit::element, optim::Unit::matrix}) {
    for (const zero::StateTensor& state : zero::state_tensors(/*trains=*/true, unit, layout))
      if (state.dtype == at::kBFloat16) return true;
  }
  return false;
}

/// A chunk of the largest slice as the checkpoint moves it: in fp32, and on a load as bf16 too.
/// fp32 in the memory of the host is written from where it lies.
int64_t chunk_bytes(const model::Decoder& decoder, const Layout& layout) {
  const bool has_bf16 = keeps_bf16(zero_layout(layout, static_cast<int>(layout.zero_stage)).state);
  if (layout.device == Device::cpu && !has_bf16) return 0;
  int64_t largest = 0;
  for (const Parameter* parameter : decoder.parameters()) {
    for (const parameters::NamedSlice& slice : parameter->slices)
      largest = std::max(largest, slice.spec.local_numel());
  }
  return std::min(largest, sharding::kStateChunkElements) *
         (kFp32Bytes + (has_bf16 ? kBf16Bytes : 0));
}

/// All but the activations.
MemoryPlan state_memory(int zero_stage, const Layout& layout,
                        const std::vector<parameters::ParameterBlock>& blocks) {
  const ZeroLayout of_zero = zero_layout(layout, zero_stage);
  const zero::BucketMemory zero = zero::bucket_memory(
      blocks, {.tp = static_cast<int>(layout.tp_size), .dp = static_cast<int>(layout.dp_size)},
      of_zero.buckets, of_zero.zero);
  MemoryPlan memory = {.parameters = zero.parameters,
                       .gradients = zero.gradients,
                       .masters = zero.masters,
                       .moments = zero.slots,
                       .buffers = zero.parameter_slots + zero.gradient_slots + zero.tp_staging +
                                  zero.dp_staging + zero.matrices + zero.bookkeeping};
  // Stage 3 keeps its shard of the parameters as masters. In the compute dtype they are both, as in
  // the other stages.
  if (zero_stage == 3 && layout.master_dtype == layout.dtype)
    memory.parameters += std::exchange(memory.masters, 0);
  return memory;
}

double share_of(const std::vector<TensorPlan>& tensors, const model::DecoderConfig& config,
                const Layout& layout) {
  double flops = 0;
  for (const TensorPlan& tensor : tensors) {
    if (tensor.unit == optim::Unit::matrix)
      flops += optim::newton_schulz_flops(tensor.global_shape[0], tensor.global_shape[1],
                                          layout.newton_schulz_steps);
  }
  // Each dp rank does all of it in stage 0, as of every update.
  if (layout.zero_stage == 0) flops *= static_cast<double>(layout.dp_size);
  const int64_t tokens =
      layout.seq_length * layout.micro_batch_size * layout.micro_batches * layout.dp_size;
  return flops / (model::flops_per_token(config, layout.seq_length) * static_cast<double>(tokens));
}

/// Of the model's whole state, each element once.
struct StateBytes {
  int64_t stored = 0;  // in fp32, whatever it is kept in
  int64_t kept = 0;
};

StateBytes state_bytes(const std::vector<TensorPlan>& tensors, const Layout& layout) {
  const ZeroLayout of_zero = zero_layout(layout, static_cast<int>(layout.zero_stage));
  StateBytes bytes;
  for (const TensorPlan& tensor : tensors) {
    if (!of_zero.state.is_in_state(tensor.trains)) continue;
    for (const zero::StateTensor& state :
         zero::state_tensors(tensor.trains, tensor.unit, of_zero.state)) {
      bytes.stored += kFp32Bytes * tensor.global_numel();
      bytes.kept += static_cast<int64_t>(c10::elementSize(state.dtype)) * tensor.global_numel();
    }
  }
  return bytes;
}

/// Every global tensor, as tp rank 0 holds it.
std::vector<TensorPlan> tensors_of(const model::DecoderConfig& config, const Layout& layout) {
  const auto tp = comm::planning_communicator("tp", 0, static_cast<int>(layout.tp_size));
  std::vector<TensorPlan> tensors;
  std::map<std::string, size_t> index_of;
  add_rank(rule_of(layout), tensors, index_of, model::Decoder(config, *tp, layout.training), 0);
  return tensors;
}

RankPlan plan_of(const model::DecoderConfig& config, const Layout& layout,
                 const model::Decoder& decoder, int tp_rank) {
  // Buckets are those of every stage.
  const zero::ParamBuckets::Options options_of_buckets = zero_layout(layout, 1).buckets;
  const std::vector<zero::Bucket> buckets =
      zero::lay_out(decoder.blocks(), static_cast<int>(layout.dp_size), options_of_buckets.rule,
                    layout.gradient_dtype, options_of_buckets.fp8_matrices);
  RankPlan rank;
  for (const Parameter* parameter : decoder.parameters()) rank.parameters += parameter->numel();
  const std::vector<Parameter*>& packed = decoder.packed_parameters();
  for (const Parameter* parameter : packed) rank.parameters += parameter->numel();
  const std::vector<Problem> cuts = tensor_parallel::check_nf4_cuts(packed, layout.tp_size);
  if (!cuts.empty()) throw ConfigError(cuts);
  const int64_t packed_bytes = tensor_parallel::Nf4Base::bytes(packed, layout.dtype);
  for (const zero::Bucket& bucket : buckets) rank.allocated += bucket.numel;
  const ActivationOptions options = {.device = layout.device,
                                     .tp_rank = tp_rank,
                                     .tp_size = static_cast<int>(layout.tp_size),
                                     .dp_size = static_cast<int>(layout.dp_size),
                                     .seq_length = layout.seq_length,
                                     .micro_batch_size = layout.micro_batch_size,
                                     .document_mask = layout.document_mask,
                                     .bf16 = layout.dtype == at::kBFloat16,
                                     .training = layout.training,
                                     .first_training_block = decoder.first_training_block(),
                                     .copies = layout.copies,
                                     .cpu_threads = layout.cpu_threads};
  const int64_t activations = peak_activation_bytes(config, options);
  rank.push_buffers = push_buffer_bytes(config, options);
  rank.save_host_bytes = chunk_bytes(decoder, layout);
  for (int stage = 0; stage < kZeroStages; ++stage) {
    MemoryPlan& memory = rank.memory[stage];
    memory = state_memory(stage, layout, decoder.blocks());
    memory.activations = activations;
    memory.saving = layout.device == Device::cpu ? rank.save_host_bytes : 0;
    memory.buffers += rank.push_buffers;
    memory.parameters += packed_bytes;
    if (stage < 3) memory.buffers += decoder.fp8_weight_bytes();  // as train/engine.cpp decides
  }
  rank.communication = communication_of(config, layout, decoder.blocks(), buckets);
  return rank;
}

}  // namespace

int64_t TensorPlan::global_numel() const {
  int64_t numel = 1;
  for (const int64_t size : global_shape) numel *= size;
  return numel;
}

RankPlan plan_of_rank(const model::DecoderConfig& config, const Layout& layout, int tp_rank) {
  check_layout(config, layout);
  const auto tp = comm::planning_communicator("tp", tp_rank, static_cast<int>(layout.tp_size));
  const model::Decoder decoder(config, *tp, layout.training);
  return plan_of(config, layout, decoder, tp_rank);
}

Plan make_plan(const model::DecoderConfig& config, const Layout& layout) {
  check_layout(config, layout);
  Plan plan;
  plan.config = config;
  plan.layout = layout;

  std::map<std::string, size_t> index_of;
  for (int rank = 0; rank < layout.tp_size; ++rank) {
    const auto tp = comm::planning_communicator("tp", rank, static_cast<int>(layout.tp_size));
    const model::Decoder decoder(config, *tp, layout.training);
    add_rank(rule_of(layout), plan.tensors, index_of, decoder, static_cast<size_t>(rank));
    const RankPlan of_rank = plan_of(config, layout, decoder, rank);
    plan.parameters_per_rank = std::max(plan.parameters_per_rank, of_rank.parameters);
    plan.save_host_bytes = std::max(plan.save_host_bytes, of_rank.save_host_bytes);
    if (of_rank.allocated > plan.allocated_per_rank) {
      plan.allocated_per_rank = of_rank.allocated;
      plan.communication = of_rank.communication;
    }
    for (int stage = 0; stage < kZeroStages; ++stage) {
      if (of_rank.memory[stage].total() > plan.memory[stage].total())
        plan.memory[stage] = of_rank.memory[stage];
    }
  }
  for (const TensorPlan& tensor : plan.tensors) {
    plan.parameters += tensor.global_numel();
    if (tensor.trains) plan.trained_parameters += tensor.global_numel();
  }
  const StateBytes state = state_bytes(plan.tensors, layout);
  plan.checkpoint_bytes = state.stored;
  plan.state_bytes = state.kept;
  plan.update_share = share_of(plan.tensors, config, layout);
  return plan;
}

double update_share(const model::DecoderConfig& config, const Layout& layout) {
  check_layout(config, layout);
  return share_of(tensors_of(config, layout), config, layout);
}

int64_t checkpoint_bytes(const model::DecoderConfig& config, const Layout& layout) {
  check_layout(config, layout);
  return state_bytes(tensors_of(config, layout), layout).stored;
}

namespace {

bool every_rank_fits(const model::DecoderConfig& config, const Layout& layout, int64_t bytes) {
  for (int rank = 0; rank < layout.tp_size; ++rank) {
    const RankPlan plan = plan_of_rank(config, layout, rank);
    if (plan.memory[static_cast<size_t>(layout.zero_stage)].total() > bytes) return false;
  }
  return true;
}

}  // namespace

std::optional<model::Recompute> least_recompute(const model::DecoderConfig& config,
                                                const Layout& layout, int64_t bytes) {
  for (const model::Recompute tried :
       {model::Recompute::none, model::Recompute::selective, model::Recompute::full}) {
    if (tried > layout.training.recompute) break;
    Layout other = layout;
    other.training.recompute = tried;
    if (every_rank_fits(config, other, bytes)) return tried;
  }
  return std::nullopt;
}

int64_t largest_micro_batch(const model::DecoderConfig& config, const Layout& layout,
                            int64_t bytes) {
  const auto fits = [&](int64_t size) {
    Layout tried = layout;
    tried.micro_batch_size = size;
    return every_rank_fits(config, tried, bytes);
  };
  int64_t fitting = 0;
  int64_t too_large = 1;
  while (too_large <= kMostSequences && fits(too_large)) {
    fitting = too_large;
    too_large *= 2;
  }
  while (fitting + 1 < too_large) {
    const int64_t middle = fitting + (too_large - fitting) / 2;
    (fits(middle) ? fitting : too_large) = middle;
  }
  return fitting;
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
  return a.global_shape == b.global_shape && a.role == b.role && a.trains == b.trains &&
         a.local_shapes == b.local_shapes;
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
