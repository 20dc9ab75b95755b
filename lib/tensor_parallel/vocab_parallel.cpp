#include "tensor_parallel/vocab_parallel.h"

#include <ATen/ATen.h>

#include <utility>

#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/partition.h"

namespace tptrain::tensor_parallel {

namespace {

using parameters::Parameter;

// Rows of a table are padded to a multiple of this: 128 bytes of bf16.
constexpr int64_t kRowAlignment = 64;

kernels::VocabSlice slice_of(const Parameter& table) {
  const sharding::ShardSpec& spec = table.slices[0].spec;
  return {.begin = spec.begin, .vocab = spec.global_shape[0]};
}

}  // namespace

std::unique_ptr<Parameter> vocab_parallel_table(const VocabTableOptions& options,
                                                const comm::Communicator& tp) {
  auto table = std::make_unique<Parameter>();
  table->name = options.name + ".weight";
  const Range range = share_of(options.vocab_size, tp.rank(), tp.size());
  table->shape = {range.size(), options.hidden_size};
  table->padding_rows =
      (range.size() + kRowAlignment - 1) / kRowAlignment * kRowAlignment - range.size();
  table->role = parameters::Role::vocab_parallel;
  table->placement = parameters::Placement::tp_sharded;
  table->slices.push_back(
      {.spec = sharding::slice_of(table->name, {options.vocab_size, options.hidden_size},
                                  /*dim=*/0, range.begin, range.end),
       .offset = 0,
       .owned = true,
       .init = {.kind = sharding::Init::Kind::normal, .std = options.init_std}});
  return table;
}

at::Tensor table_rows(const Parameter& table, const at::Tensor& ids) {
  return kernels::embedding_rows(table.data, ids.reshape({-1}), slice_of(table));
}

at::Tensor vocab_parallel_embedding(const at::Tensor& ids, const Parameter& table,
                                    const SequenceRegion& region) {
  return region.reduce(table_rows(table, ids).view({ids.size(0), ids.size(1), table.shape[1]}));
}

at::Tensor vocab_parallel_embedding_backward(const at::Tensor& grad_output,
                                             const SequenceRegion& region) {
  return region.gather(grad_output).reshape({-1, grad_output.size(-1)});
}

void add_table_rows(Parameter& table, at::Tensor rows, const at::Tensor& ids) {
  if (!table.trains) return;
  kernels::accumulate_embedding_gradient(table.main_grad, std::move(rows), ids.reshape({-1}),
                                         slice_of(table));
}

at::Tensor memory_for_logits(int64_t tokens, const Parameter& table) {
  if (!table.data.is_cuda()) return {};
  return at::empty({tokens, table.shape[0] + table.padding_rows}, table.data.options());
}

at::Tensor vocab_parallel_logits(const at::Tensor& x, const Parameter& table, at::Tensor memory) {
  if (!x.is_cuda()) return linear(x, table, nullptr);
  kernels::product_out(memory, x, table.with_padding(table.data).t());
  return memory.narrow(1, 0, table.shape[0]);
}

void vocab_parallel_logits_backward(const at::Tensor& grad_logits, const at::Tensor& x,
                                    Parameter& table, at::Tensor& grad_x) {
  if (!x.is_cuda()) {
    linear_weight_gradient(grad_logits, x, table, nullptr);
    kernels::product_out(grad_x, grad_logits, table.data);
    return;
  }
  const at::Tensor padded =
      grad_logits.as_strided({grad_logits.size(0), grad_logits.stride(0)}, grad_logits.strides());
  if (table.trains) {
    at::Tensor main_grad = table.with_padding(table.main_grad);
    multiply_weight_gradient(table, main_grad, padded, x);
  }
  kernels::product_out(grad_x, padded, table.with_padding(table.data));
}

VocabParallelCrossEntropy::VocabParallelCrossEntropy(at::Tensor logits, at::Tensor targets,
                                                     const Parameter& table, comm::Communicator& tp)
    : exp_(std::move(logits)),
      targets_(std::move(targets)),
      vocab_begin_(table.slices[0].spec.begin) {
  const bool one_slice = tp.size() == 1;
  if (!one_slice && !kernels::vocab_keeps_logits(exp_)) {
    row_max_ = kernels::vocab_row_max(exp_);
    tp.all_reduce(row_max_, comm::ReduceOp::max);
    sums_ = kernels::vocab_exp_(exp_, row_max_, targets_, vocab_begin_);
    tp.all_reduce(sums_, comm::ReduceOp::sum);
    return;
  }
  kernels::VocabStatistics local = kernels::vocab_statistics_(exp_, targets_, vocab_begin_);
  row_max_ = std::move(local.row_max);
  sums_ = std::move(local.sums);
  if (one_slice) return;
  const at::Tensor slice_max = row_max_.clone();
  tp.all_reduce(row_max_, comm::ReduceOp::max);
  kernels::vocab_rescale_(sums_, exp_, slice_max, row_max_, targets_, vocab_begin_);
  tp.all_reduce(sums_, comm::ReduceOp::sum);
}

at::Tensor VocabParallelCrossEntropy::sums() const {
  return kernels::cross_entropy_sums(sums_, row_max_, targets_);
}

at::Tensor VocabParallelCrossEntropy::backward(const at::Tensor& scale, double z_loss) && {
  kernels::vocab_softmax_backward_(exp_, sums_, row_max_, targets_, vocab_begin_, scale, z_loss);
  return std::move(exp_);
}

CrossEntropyGradient vocab_parallel_cross_entropy_gradient(at::Tensor logits, at::Tensor targets,
                                                           const Parameter& table,
                                                           comm::Communicator& tp,
                                                           const at::Tensor& scale, double z_loss) {
  if (tp.size() == 1) {
    const kernels::VocabStatistics found = kernels::vocab_softmax_gradient_(
        logits, targets, table.slices[0].spec.begin, scale, z_loss);
    return {kernels::cross_entropy_sums(found.sums, found.row_max, targets), std::move(logits)};
  }
  VocabParallelCrossEntropy entropy(std::move(logits), std::move(targets), table, tp);
  at::Tensor sums = entropy.sums();
  return {std::move(sums), std::move(entropy).backward(scale, z_loss)};
}

}  // namespace tptrain::tensor_parallel
