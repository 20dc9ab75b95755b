// The rules of the stages in one place.
#include "zero/state_layout.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "optim/update_rule.h"

namespace tptrain::zero {
namespace {

/// State is handed out by all_slots(): what is not among them would be lost on the way to a file.
std::vector<optim::Slot> checked_slots(const optim::UpdateRule& rule, optim::Unit unit,
                                       const config::OptimizerConfig& options) {
  std::vector<optim::Slot> slots = rule.slots(unit, options);
  for (const optim::Slot& slot : slots) {
    const bool is_named = std::ranges::find(rule.all_slots(), slot.name) != rule.all_slots().end();
    if (is_named && (slot.dtype == at::kFloat || slot.dtype == at::kBFloat16)) continue;
    throw InternalError(
        problem(cat("the slot '", slot.name, "' of ", rule.name(), ", ", at::toString(slot.dtype)))
            .must("be of fp32 or bf16, and among all_slots()"));
  }
  return slots;
}

}  // namespace

StateLayout state_layout(const ParamBuckets::Options& buckets, const Options& options,
                         int dp_size) {
  const int stage = options.zero_stage;
  if (stage != buckets.zero_stage) {
    throw InternalError(
        problem(cat("ZeRO stage ", stage, " over buckets of stage ", buckets.zero_stage))
            .must("be the same"));
  }
  if (options.optimizer.betas.size() != 2) {
    throw InternalError(problem(cat(options.optimizer.betas.size(), " betas")).must("be two"));
  }
  if (options.reduce_dtype != at::kFloat && options.reduce_dtype != at::kBFloat16) {
    throw InternalError(problem(cat("reduction in ", at::toString(options.reduce_dtype)))
                            .must("be in fp32 or bf16"));
  }
  StateLayout layout;
  layout.master_dtype = optim::scalar_type(options.optimizer.master_dtype);
  layout.rule =
      buckets.rule != nullptr ? buckets.rule : &optim::update_rule(options.optimizer.type);
  layout.element_slots = checked_slots(*layout.rule, optim::Unit::element, options.optimizer);
  layout.matrix_slots = checked_slots(*layout.rule, optim::Unit::matrix, options.optimizer);
  if (layout.master_dtype == at::kBFloat16 && buckets.dtype != at::kBFloat16) {
    throw InternalError(
        problem("master_dtype bf16 with fp32 parameters").must("be fp32, or the parameters bf16"));
  }
  if (buckets.gradient_dtype != at::kFloat &&
      (buckets.gradient_dtype != at::kBFloat16 || buckets.dtype != at::kBFloat16 ||
       !layout.rule->takes_bf16_gradients())) {
    throw InternalError(
        problem(cat("gradients of ", at::toString(buckets.gradient_dtype), " with parameters of ",
                    at::toString(buckets.dtype), " and ", layout.rule->name()))
            .must("be fp32, or bf16 with bf16 parameters and a rule by elements"));
  }
  layout.frozen_values = options.frozen_values;
  layout.parameter_dtype = buckets.dtype;
  layout.holds_all = stage == 0;
  layout.parameter_buffers = stage == 3 ? Buffers::shared : Buffers::own;
  layout.gradient_buffers = stage >= 2 ? Buffers::shared : Buffers::own;
  layout.gathers_parameters = stage == 3 || (stage > 0 && dp_size > 1);
  layout.accumulates = stage >= 2 || options.reduce_per_micro_batch;
  layout.own_masters = stage == 3 || layout.master_dtype != buckets.dtype;
  if (buckets.gradient_dtype != at::kFloat && layout.holds_all && layout.accumulates &&
      dp_size > 1) {
    throw InternalError(problem("bf16 gradients in stage 0, reduced per micro-batch")
                            .must("be fp32, or of another stage"));
  }
  layout.keeps_amax = buckets.dtype == at::kBFloat16;
  layout.casts_for_reduction = options.reduce_dtype == at::kBFloat16 && dp_size > 1;
  return layout;
}

std::vector<StateTensor> state_tensors(bool trains, optim::Unit unit, const StateLayout& layout) {
  const bool own = trains && layout.own_masters;
  std::vector<StateTensor> tensors = {
      {.kind = sharding::kMaster, .dtype = own ? layout.master_dtype : layout.parameter_dtype}};
  if (!trains) return tensors;
  for (const optim::Slot& slot : layout.slots(unit))
    tensors.push_back({.kind = slot.name, .dtype = slot.dtype});
  return tensors;
}

StepTensors step_tensors(int64_t parameters) {
  return {.nonfinite_flags = {.shape = {parameters}, .dtype = at::kFloat},
          .parameter_indices = {.shape = {parameters}, .dtype = at::kLong}};
}

int64_t StepTensors::bytes() const {
  return nonfinite_flags.bytes() + parameter_indices.bytes() + learning_rate.bytes() +
         updates.bytes() + gradient_scale.bytes() + finite.bytes();
}

int64_t parameter_count(const std::vector<parameters::ParameterBlock>& blocks) {
  int64_t count = 0;
  for (const parameters::ParameterBlock& block : blocks)
    count += static_cast<int64_t>(block.parameters.size());
  return count;
}

}  // namespace tptrain::zero
