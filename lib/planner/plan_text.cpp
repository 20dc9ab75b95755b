// The plan on a terminal.
#include <algorithm>

#include "base/text.h"
#include "optim/update_rule.h"
#include "planner/plan.h"
#include "planner/zero_layout.h"

namespace tptrain::planner {

namespace {

enum class Align { left, right };

/// Rows of equal length as columns two spaces apart.
std::string table(const std::vector<std::vector<std::string>>& rows,
                  const std::vector<Align>& columns) {
  std::vector<size_t> widths(columns.size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      if (i > 0) line += "  ";
      line += columns[i] == Align::left ? row[i] + space : space + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string shape_text(const std::vector<int64_t>& shape) { return cat("[", join(shape), "]"); }

std::string dtype_name(at::ScalarType dtype) { return dtype == at::kBFloat16 ? "bf16" : "fp32"; }

/// One shape where all tp ranks hold alike, else each run of ranks with its own: "[4, 8] (rank 0),
/// [2, 8] (ranks 1-3)".
std::string local_shapes_text(const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < shapes.size();) {
    size_t end = begin + 1;
    while (end < shapes.size() && shapes[end] == shapes[begin]) ++end;
    if (begin == 0 && end == shapes.size()) return shape_text(shapes[0]);
    parts.push_back(cat(
        shape_text(shapes[begin]),
        end - begin == 1 ? cat(" (rank ", begin, ")") : cat(" (ranks ", begin, "-", end - 1, ")")));
    begin = end;
  }
  return join(parts);
}

/// What a rule by matrices makes of the step's length.
std::string update_text(const Plan& plan) {
  int64_t matrices = 0;
  for (const TensorPlan& tensor : plan.tensors) matrices += tensor.unit == optim::Unit::matrix;
  if (matrices == 0) return "";
  return cat("update  ", word(plan.layout.update_rule), ": makes ", matrices,
             " matrices orthogonal, ", plan.layout.newton_schulz_steps,
             " Newton-Schulz steps each: ", fixed(100 * plan.update_share, 1),
             " % of the step's arithmetic on top\n");
}

std::string heading(const Plan& plan) {
  const model::DecoderConfig& c = plan.config;
  const Layout& l = plan.layout;
  const char* recompute = l.training.recompute == model::Recompute::none        ? "none"
                          : l.training.recompute == model::Recompute::selective ? "selective"
                                                                                : "full";
  const char* cut = l.tp_size == 1 ? ""
                    : l.training.sequence_parallel == tensor_parallel::SequenceParallel::on
                        ? ", sequence parallelism"
                        : ", no sequence parallelism";
  return cat("model   ", c.model_type, ": ", c.num_hidden_layers, " layers, hidden ", c.hidden_size,
             ", ffn ", c.intermediate_size, ", ", c.num_attention_heads, " heads of ", c.head_dim,
             " (", c.num_key_value_heads, " kv), vocabulary ", with_thousands(c.vocab_size),
             c.tie_word_embeddings ? ", tied head" : "", "\n", "layout  tp ", l.tp_size, " x dp ",
             l.dp_size, " = ", l.tp_size * l.dp_size,
             l.tp_size * l.dp_size == 1 ? " rank" : " ranks", ", ZeRO ", l.zero_stage, cut, "\n",
             "step    ", l.micro_batches, l.micro_batches == 1 ? " micro-batch" : " micro-batches",
             " of ", l.micro_batch_size, l.micro_batch_size == 1 ? " sequence" : " sequences",
             " of ", l.seq_length, " tokens a dp rank, ", dtype_name(l.dtype), ", recompute ",
             recompute, l.device == Device::cuda ? ", on GPUs" : "", "\n", update_text(plan));
}

std::string tensor_table(const Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "role", "global shape", plan.layout.tp_size > 1 ? "on a tp rank" : "on a rank",
       "parameters"}};
  for (const TensorGroup& group : fold_layers(plan.tensors)) {
    rows.push_back(
        {group.name,
         cat(parameters::role_name(group.tensor.role), group.tensor.trains ? "" : ", frozen"),
         shape_text(group.tensor.global_shape), local_shapes_text(group.tensor.local_shapes),
         with_thousands(group.count * group.tensor.global_numel())});
  }
  rows.push_back({"total", "", "", "", with_thousands(plan.parameters)});
  if (plan.trained_parameters < plan.parameters)
    rows.push_back({"of them trained", "", "", "", with_thousands(plan.trained_parameters)});
  rows.push_back({"total on a rank", "", "", "", with_thousands(plan.parameters_per_rank)});
  return table(rows, {Align::left, Align::left, Align::left, Align::left, Align::right});
}

/// "", "ZeRO 0", "[ZeRO 1]", ..: the chosen stage in brackets.
std::vector<std::string> stage_header(const Plan& plan) {
  std::vector<std::string> header = {""};
  for (int stage = 0; stage < kZeroStages; ++stage) {
    header.push_back(stage == plan.layout.zero_stage ? cat("[ZeRO ", stage, "]")
                                                     : cat("ZeRO ", stage));
  }
  header.push_back("");
  return header;
}

const std::vector<Align> kStageColumns = {Align::left,  Align::right, Align::right,
                                          Align::right, Align::right, Align::left};

/// What the rule keeps, and in which types: one word where all are alike, else theirs in order.
std::string moments_note(const Layout& layout) {
  const zero::StateLayout state = zero_layout(layout, static_cast<int>(layout.zero_stage)).state;
  std::vector<std::string> types;
  for (const auto& slots : {state.matrix_slots, state.element_slots}) {
    for (const optim::Slot& slot : slots) {
      const std::string type = dtype_name(slot.dtype);
      if (std::ranges::find(types, type) == types.end()) types.push_back(type);
    }
  }
  return cat(join(state.rule->all_slots(), " and "), " of ", state.rule->name(), ", ",
             join(types, " and "));
}

std::string memory_table(const Plan& plan) {
  const Layout& l = plan.layout;
  std::vector<std::vector<std::string>> rows = {stage_header(plan)};
  const auto add = [&](const char* name, int64_t (*bytes)(const MemoryPlan&), std::string note) {
    std::vector<std::string> row = {name};
    for (const MemoryPlan& memory : plan.memory) row.push_back(human_bytes(bytes(memory)));
    row.push_back(std::move(note));
    rows.push_back(std::move(row));
  };
  const bool has_masters = std::any_of(plan.memory.begin(), plan.memory.end(),
                                       [](const MemoryPlan& memory) { return memory.masters > 0; });
  const auto& adapter = l.training.adapter;
  const bool packed = adapter && adapter->base_dtype == config::BaseDtype::nf4;
  add(
      "  parameters", [](const MemoryPlan& m) { return m.parameters; },
      cat(dtype_name(l.dtype), packed ? ", the layers' linears in NF4" : ""));
  add(
      "  gradients", [](const MemoryPlan& m) { return m.gradients; },
      l.gradient_dtype == at::kBFloat16 ? "the layers' bf16, others fp32" : "fp32");
  if (has_masters) {
    add(
        "  masters", [](const MemoryPlan& m) { return m.masters; },
        cat("master weights, ", dtype_name(l.master_dtype)));
  }
  add(
      "  moments", [](const MemoryPlan& m) { return m.moments; }, moments_note(l));
  add(
      "  buffers", [](const MemoryPlan& m) { return m.buffers; },
      "gradients and gathered parameters of the blocks at work");
  add(
      "  activations", [](const MemoryPlan& m) { return m.activations; }, "at their peak");
  add(
      "  sum", [](const MemoryPlan& m) { return m.total(); }, "libraries come on top");
  return "memory of a rank\n" + table(rows, kStageColumns);
}

std::string communication_table(const Plan& plan) {
  const Communication& c = plan.communication;
  const int64_t micro_batches = plan.layout.micro_batches;
  std::vector<std::vector<std::string>> rows = {stage_header(plan)};
  const auto add_model = [&](const char* name, const Collective& of_micro_batch) {
    if (of_micro_batch.calls == 0) return;
    std::vector<std::string> row = {name};
    for (int stage = 0; stage < kZeroStages; ++stage)
      row.push_back(human_bytes(micro_batches * of_micro_batch.bytes));
    row.push_back(cat("activations, ", of_micro_batch.calls, " calls a micro-batch"));
    rows.push_back(std::move(row));
  };
  const auto add = [&](const char* name, Collective StageCommunication::*collective,
                       const char* note) {
    const auto is_none = [&](const StageCommunication& stage) {
      return stage.*collective == Collective{};
    };
    if (std::ranges::all_of(c.stages, is_none)) return;
    std::vector<std::string> row = {name};
    for (const StageCommunication& stage : c.stages)
      row.push_back(human_bytes((stage.*collective).bytes));
    row.push_back(note);
    rows.push_back(std::move(row));
  };
  add_model("  tp all-gather", c.tp.all_gather);
  add_model("  tp reduce-scatter", c.tp.reduce_scatter);
  add_model("  tp all-reduce", c.tp.all_reduce);
  add("  tp all-reduce", &StageCommunication::tp_gradients, "gradients of what tp ranks share");
  add("  dp reduce-scatter", &StageCommunication::dp_reduce_scatter, "gradients");
  add("  dp all-gather", &StageCommunication::dp_all_gather, "ZeRO 0: gradients, else parameters");
  add("  tp all-reduce", &StageCommunication::tp_fp8_scales, "scales of weights in FP8");
  add("  dp all-reduce", &StageCommunication::dp_fp8_scales, "scales of weights in FP8");
  add("  tp all-to-all", &StageCommunication::tp_all_to_all, "matrices of the update, and back");
  add("  dp all-to-all", &StageCommunication::dp_all_to_all, "matrices of the update, and back");
  if (rows.size() == 1) return "communication of a rank: none\n";
  return "communication of a rank in a step (bytes of the full tensors)\n" +
         table(rows, kStageColumns);
}

// What a rank copies of the state for a save beside the steps, as it is kept: each element is one
// rank's.
int64_t copy_bytes(const Plan& plan) {
  const int64_t ranks = plan.layout.tp_size * plan.layout.dp_size;
  return (plan.state_bytes + ranks - 1) / ranks;
}

}  // namespace

std::string to_text(const Plan& plan) {
  return cat(
      heading(plan), "\n", tensor_table(plan), "\n", memory_table(plan), "\n",
      communication_table(plan), "\n", "checkpoint  ", human_bytes(plan.checkpoint_bytes),
      plan.layout.training.adapter ? "  what trains alone: master weights and the moments, fp32"
                                   : "  master weights and the moments, fp32",
      plan.save_host_bytes == 0 ? ""
                                : cat("; a save or load takes ", human_bytes(plan.save_host_bytes),
                                      " of host memory beside the state"),
      "\n",
      plan.layout.async_saves
          ? cat("            while it is written a copy of it is in the memory of the hosts: ",
                human_bytes(copy_bytes(plan)), " a rank (checkpoint.async)\n")
          : "");
}

}  // namespace tptrain::planner
