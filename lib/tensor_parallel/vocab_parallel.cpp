#include "tensor_parallel/vocab_parallel.h"

#include <ATen/ATen.h>

#include <utility>

#include "kernels/kernels.h"
#include "tensor_parallel/partition.h"

namespace tptrain::tensor_parallel {

namespace {

using sharding::Parameter;

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

}  // namespace

std::unique_ptr<Parameter> vocab_parallel_table(const VocabTableOptions& options,
                                                const comm::Communicator& tp) {
  auto table = std::make_unique<Parameter>();
  table->name = options.name + ".weight";
  const Range range = share_of(options.vocab_size, tp.rank(), tp.size());
  table->shape = {range.size(), options.hidden_size};
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

at::Tensor vocab_parallel_embedding(const at::Tensor& ids, const Parameter& table,
                                    const SequenceRegion& region) {
  const LocalIds local = local_ids(ids, table);
  at::Tensor output = at::index_select(table.data, 0, local.rows);  // [T, H]
  if (local.outside.defined()) output.masked_fill_(local.outside, 0);
  return region.reduce(output.view({ids.size(0), ids.size(1), table.shape[1]}));
}

void vocab_parallel_embedding_backward(const at::Tensor& grad_output, const at::Tensor& ids,
                                       Parameter& table, const SequenceRegion& region) {
  const LocalIds local = local_ids(ids, table);
  at::Tensor grad =
      region.gather(grad_output).reshape({-1, table.shape[1]}).to(at::kFloat);  // [T, H]
  // Shapes stay static: a token that lives elsewhere adds zeros to row 0.
  if (local.outside.defined()) grad = grad.masked_fill(local.outside, 0);
  // A token that occurs twice adds twice to one row. The order must be the same in every run:
  // index_add_ is sequential on CPU but atomic on CUDA, where index_put_ sorts first.
  if (grad.is_cuda()) {
    table.main_grad.index_put_({local.rows}, grad, /*accumulate=*/true);
  } else {
    table.main_grad.index_add_(0, local.rows, grad);
  }
}

VocabParallelCrossEntropy::VocabParallelCrossEntropy(at::Tensor logits, at::Tensor targets,
                                                     const Parameter& table, comm::Communicator& tp)
    : exp_(std::move(logits)),
      targets_(std::move(targets)),
      vocab_begin_(table.slices[0].spec.begin) {
  row_max_ = kernels::vocab_row_max(exp_);
  if (tp.size() > 1) tp.all_reduce(row_max_, comm::ReduceOp::max);
  sums_ = kernels::vocab_exp_(exp_, row_max_, targets_, vocab_begin_);
  if (tp.size() > 1) tp.all_reduce(sums_, comm::ReduceOp::sum);
}

at::Tensor VocabParallelCrossEntropy::sums() const {
  return kernels::cross_entropy_sums(sums_, row_max_, targets_);
}

at::Tensor VocabParallelCrossEntropy::backward(const at::Tensor& scale, double z_loss) && {
  kernels::vocab_softmax_backward_(exp_, sums_, row_max_, targets_, vocab_begin_, scale, z_loss);
  return std::move(exp_);
}

}  // namespace tptrain::tensor_parallel
