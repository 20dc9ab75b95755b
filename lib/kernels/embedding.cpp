// Look-up in a slice of an embedding's table, and its gradient: dispatch to the CUDA kernels or to
// ATen.
#include <utility>

#include "kernels/composition.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

// Ids as rows of the slice, and which of them lie elsewhere (undefined where none can).
struct LocalIds {
  at::Tensor rows;     // [T] int64, 0 where elsewhere
  at::Tensor outside;  // [T, 1] bool
};

LocalIds local_ids(const at::Tensor& ids, int64_t rows, const VocabSlice& slice) {
  if (slice.vocab == rows) return {.rows = ids, .outside = {}};
  at::Tensor local = ids - slice.begin;
  const at::Tensor outside = at::logical_or(local < 0, local >= rows);
  local.masked_fill_(outside, 0);
  return {.rows = local, .outside = outside.unsqueeze(1)};
}

void check_ids(const at::Tensor& ids, const char* function) {
  expect(ids.dim() == 1 && ids.scalar_type() == at::kLong, function, "have int64 ids [T]",
         ids.sizes());
  expect_contiguous(ids, function);
}

void gradient_by_cuda(at::Tensor& table_grad, const at::Tensor& grad_output,
                      const TokenOrder& order, const VocabSlice& slice) {
  const int64_t tokens = grad_output.size(0);
  const int64_t hidden = grad_output.size(1);
  const at::Tensor partial = at::empty({2 * cuda::embedding_chunks(tokens), hidden},
                                       grad_output.options().dtype(at::kFloat));
  cuda::embedding_gradient({.element = element_of(grad_output),
                            .grad_output = grad_output.const_data_ptr(),
                            .sorted_ids = order.sorted_ids.const_data_ptr<int32_t>(),
                            .order = order.tokens.const_data_ptr<int64_t>(),
                            .table_grad = table_grad.data_ptr<float>(),
                            .partial = partial.data_ptr<float>(),
                            .vocab_begin = slice.begin,
                            .vocab = table_grad.size(0),
                            .tokens = tokens,
                            .hidden = hidden},
                           cuda::stream_of(grad_output));
  cuda::check_launch("accumulate_embedding_gradient");
}

}  // namespace

at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& ids, const VocabSlice& slice) {
  expect(table.dim() == 2, "embedding_rows", "have a table [V_local, H]", table.sizes());
  expect_contiguous(table, "embedding_rows");
  check_ids(ids, "embedding_rows");
  if (takes_cuda_kernels(table)) {
    at::Tensor output = at::empty({ids.size(0), table.size(1)}, table.options());
    cuda::embedding_rows({.element = element_of(table),
                          .table = table.const_data_ptr(),
                          .ids = ids.const_data_ptr<int64_t>(),
                          .output = output.mutable_data_ptr(),
                          .vocab_begin = slice.begin,
                          .vocab = table.size(0),
                          .tokens = ids.size(0),
                          .hidden = table.size(1)},
                         cuda::stream_of(table));
    cuda::check_launch("embedding_rows");
    return output;
  }
  const LocalIds local = local_ids(ids, table.size(0), slice);
  at::Tensor output = at::index_select(table, 0, local.rows);  // [T, H]
  if (local.outside.defined()) output.masked_fill_(local.outside, 0);
  return output;
}

TokenOrder order_of_tokens(const at::Tensor& ids) {
  check_ids(ids, "order_of_tokens");
  if (!ids.is_cuda() || !cuda::built()) return {};
  // Stable, so that the sums have one order. 32 bits are half the passes.
  auto [sorted, order] =
      at::sort(ids.to(at::kInt), /*stable=*/true, /*dim=*/0, /*descending=*/false);
  return {.sorted_ids = std::move(sorted), .tokens = std::move(order)};
}

void accumulate_embedding_gradient(at::Tensor& table_grad, at::Tensor grad_output,
                                   const at::Tensor& ids, const VocabSlice& slice,
                                   const TokenOrder& order) {
  check_ids(ids, "accumulate_embedding_gradient");
  expect(grad_output.dim() == 2 && table_grad.dim() == 2 && grad_output.size(0) == ids.size(0) &&
             grad_output.size(1) == table_grad.size(1),
         "accumulate_embedding_gradient", "have a grad_output [T, H] for a table [V_local, H]",
         grad_output.sizes());
  expect_contiguous(grad_output, "accumulate_embedding_gradient");
  expect_contiguous(table_grad, "accumulate_embedding_gradient");
  if (takes_cuda_kernels(grad_output) && table_grad.scalar_type() == at::kFloat) {
    gradient_by_cuda(table_grad, grad_output, order.tokens.defined() ? order : order_of_tokens(ids),
                     slice);
    return;
  }
  const LocalIds local = local_ids(ids, table_grad.size(0), slice);
  // Each copy takes the place of the one before it, which is freed where the caller gave it away.
  grad_output = grad_output.to(table_grad.scalar_type());
  // Shapes stay static: a token that lives elsewhere adds zeros to row 0.
  if (local.outside.defined()) grad_output = grad_output.masked_fill(local.outside, 0);
  // A token that occurs twice adds twice to one row. The order must be the same in every run:
  // index_add_ is sequential on CPU but atomic on CUDA, where index_put_ sorts first.
  if (grad_output.is_cuda()) {
    table_grad.index_put_({local.rows}, grad_output, /*accumulate=*/true);
  } else {
    table_grad.index_add_(0, local.rows, grad_output);
  }
}

}  // namespace tptrain::kernels
