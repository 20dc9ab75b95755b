// The plan on a terminal.
#include <algorithm>

#include "base/text.h"
#include "planner/plan.h"

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

std::string heading(const Plan& plan) {
  const model::DecoderConfig& c = plan.config;
  const Layout& l = plan.layout;
  return cat("model   ", c.model_type, ": ", c.num_hidden_layers, " layers, hidden ", c.hidden_size,
             ", ffn ", c.intermediate_size, ", ", c.num_attention_heads, " heads of ", c.head_dim,
             " (", c.num_key_value_heads, " kv), vocabulary ", with_thousands(c.vocab_size),
             c.tie_word_embeddings ? ", tied head" : "", "\n", "layout  tp ", l.tp_size, " x dp ",
             l.dp_size, " = ", l.tp_size * l.dp_size,
             l.tp_size * l.dp_size == 1 ? " rank" : " ranks", ", ZeRO ", l.zero_stage,
             ", sequences of ", l.seq_length, " tokens, ", l.micro_batch_size, " a micro-batch\n");
}

std::string tensor_table(const Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "role", "global shape", plan.layout.tp_size > 1 ? "on a tp rank" : "on a rank",
       "parameters"}};
  for (const TensorGroup& group : fold_layers(plan.tensors)) {
    rows.push_back({group.name, std::string(sharding::role_name(group.tensor.role)),
                    shape_text(group.tensor.global_shape),
                    local_shapes_text(group.tensor.local_shapes),
                    with_thousands(group.count * group.tensor.global_numel())});
  }
  rows.push_back({"total", "", "", "", with_thousands(plan.parameters)});
  rows.push_back({"total on a rank", "", "", "", with_thousands(plan.parameters_per_rank)});
  return table(rows, {Align::left, Align::left, Align::left, Align::left, Align::right});
}

std::string memory_table(const Plan& plan) {
  const MemoryPlan& m = plan.memory;
  const std::string moments =
      plan.layout.zero_stage == 0 || plan.layout.dp_size == 1
          ? "both moments of AdamW, fp32"
          : cat("both moments of AdamW, fp32, a share of 1/", plan.layout.dp_size, " (ZeRO 1)");
  return "memory of a rank\n" +
         table({{"  parameters", human_bytes(m.parameters), "fp32"},
                {"  gradients", human_bytes(m.gradients), "fp32"},
                {"  optimizer", human_bytes(m.optimizer), moments},
                {"  activations", human_bytes(m.activations),
                 "estimate: what forward keeps for backward"},
                {"  sum", human_bytes(m.total()), "temporary buffers and libraries come on top"}},
               {Align::left, Align::right, Align::left});
}

std::string communication_table(const Plan& plan) {
  const Communication& c = plan.communication;
  const char* gathered = plan.layout.zero_stage == 0 ? "reduced gradients" : "updated parameters";
  std::vector<std::vector<std::string>> rows;
  if (plan.layout.tp_size > 1) {
    rows.push_back({"  tp all-reduce", human_bytes(c.tp_all_reduce_bytes_per_micro_batch),
                    "a micro-batch",
                    cat(c.tp_all_reduces_per_micro_batch, " calls, forward and backward")});
  }
  if (plan.layout.dp_size > 1) {
    rows.push_back({"  dp reduce-scatter", human_bytes(c.dp_reduce_scatter_bytes_per_step),
                    "a step", "gradients"});
    rows.push_back(
        {"  dp all-gather", human_bytes(c.dp_all_gather_bytes_per_step), "a step", gathered});
  }
  if (rows.empty()) return "communication of a rank: none\n";
  return "communication of a rank (bytes of the full tensors)\n" +
         table(rows, {Align::left, Align::right, Align::left, Align::left});
}

}  // namespace

std::string to_text(const Plan& plan) {
  return cat(heading(plan), "\n", tensor_table(plan), "\n", memory_table(plan), "\n",
             communication_table(plan), "\n", "checkpoint  ", human_bytes(plan.checkpoint_bytes),
             "  master weights and both moments, fp32\n");
}

}  // namespace tptrain::planner
