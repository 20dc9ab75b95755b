#include "tensor_parallel/vocab_parallel.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/regions.h"
#include "tensor_parallel/saved_pointer.h"

namespace tptrain::tensor_parallel {

namespace {

using sharding::Parameter;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Ids as rows of the local table, and which of them lie elsewhere (undefined where none can).
struct LocalIds {
  at::Tensor rows;     // [T] int64, 0 where elsewhere
  at::Tensor outside;  // [T, 1] bool
};

LocalIds local_ids(const at::Tensor& ids, const Parameter& table) {
  const sharding::ShardSpec& spec = table.slices[0].spec;
  const at::Tensor flat = ids.reshape({-1});
  if (spec.end - spec.begin == spec.global_shape[0]) return {.rows = flat, .outside = {}};
  at::Tensor rows = flat - spec.begin;
  const at::Tensor outside = at::logical_or(rows < 0, rows >= spec.end - spec.begin);
  rows.masked_fill_(outside, 0);
  return {.rows = rows, .outside = outside.unsqueeze(1)};
}

class EmbeddingFunction : public torch::autograd::Function<EmbeddingFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& ids, Parameter* table,
                            const at::Tensor& anchor) {
    const LocalIds local = local_ids(ids, *table);
    ctx->save_for_backward({local.rows, local.outside});
    ctx->saved_data["table"] = saved_pointer(table);
    at::Tensor output = at::index_select(table->data, 0, local.rows);  // [T, H]
    if (local.outside.defined()) output.masked_fill_(local.outside, 0);
    return at::_unsafe_view(output, {ids.size(0), ids.size(1), table->shape[1]});
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    Parameter& table = *pointer_from<Parameter>(ctx->saved_data["table"]);
    const at::Tensor& rows = saved[0];
    const at::Tensor& outside = saved[1];
    at::Tensor grad = grads[0].reshape({-1, table.shape[1]}).to(at::kFloat);  // [T, H]
    // Shapes stay static: a token that lives elsewhere adds zeros to row 0.
    if (outside.defined()) grad = grad.masked_fill(outside, 0);
    // A token that occurs twice adds twice to one row. The order must be the same in every run:
    // index_add_ is sequential on CPU but atomic on CUDA, where index_put_ sorts first.
    if (grad.is_cuda()) {
      table.main_grad.index_put_({rows}, grad, /*accumulate=*/true);
    } else {
      table.main_grad.index_add_(0, rows, grad);
    }
    return {{}, {}, {}};
  }
};

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& targets, const at::Tensor& inverse_target_tokens,
                            comm::Communicator* tp) {
    // Written through an alias: what made the logits does not need them in its backward.
    at::Tensor exp = logits.detach();                  // [T, V/tp]
    at::Tensor row_max = kernels::vocab_row_max(exp);  // [T]
    const int64_t vocab_begin = tp->rank() * exp.size(1);
    if (tp->size() > 1) tp->all_reduce(row_max, comm::ReduceOp::max);
    at::Tensor sums = kernels::vocab_exp_(exp, row_max, targets, vocab_begin);  // [2, T]
    if (tp->size() > 1) tp->all_reduce(sums, comm::ReduceOp::sum);
    ctx->save_for_backward({logits, sums, targets, inverse_target_tokens});
    ctx->saved_data["vocab_begin"] = vocab_begin;
    return kernels::cross_entropy_sum(sums, targets) * inverse_target_tokens;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    at::Tensor exp = saved[0].detach();
    const at::Tensor scale = grads[0] * saved[3];
    kernels::vocab_softmax_backward_(exp, saved[1], saved[2],
                                     ctx->saved_data["vocab_begin"].toInt(), scale);
    return {exp, {}, {}, {}};
  }
};

}  // namespace

std::unique_ptr<Parameter> vocab_parallel_table(const VocabTableOptions& options,
                                                const comm::Communicator& tp) {
  auto table = std::make_unique<Parameter>();
  table->name = options.name + ".weight";
  const Range range = even_range(options.vocab_size, tp, table->name);
  table->shape = {range.end - range.begin, options.hidden_size};
  table->role = sharding::Role::vocab_parallel;
  table->placement = sharding::Placement::tp_sharded;
  table->slices.push_back(
      {.spec = sharding::slice_of(table->name, {options.vocab_size, options.hidden_size},
                                  /*dim=*/0, range.begin, range.end),
       .offset = 0,
       .owned = true,
       .init = {.kind = sharding::Init::Kind::normal, .std = options.init_std}});
  return table;
}

at::Tensor vocab_parallel_embedding(const at::Tensor& ids, Parameter& table,
                                    const at::Tensor& anchor, comm::Communicator& tp) {
  return reduce_from_region(EmbeddingFunction::apply(ids, &table, anchor), tp);
}

at::Tensor vocab_parallel_logits(const at::Tensor& x, Parameter& table, comm::Communicator& tp) {
  return local_linear(copy_to_region(x, tp), table, nullptr);
}

at::Tensor vocab_parallel_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                        const at::Tensor& inverse_target_tokens,
                                        comm::Communicator& tp) {
  return CrossEntropyFunction::apply(logits, targets, inverse_target_tokens, &tp);
}

}  // namespace tptrain::tensor_parallel
