// The views of attention's packed buffer, its packing, and the checks of documents.
#include "kernels/attention_parts.h"

namespace tptrain::kernels::attention {

at::Tensor heads_first(const at::Tensor& packed, int64_t head_dim) {
  return packed.view({packed.size(0), packed.size(1), packed.size(2) / head_dim, head_dim})
      .permute({1, 2, 0, 3});
}

Views split(const at::Tensor& qkv, const AttentionShape& shape) {
  const at::Tensor all = heads_first(qkv, shape.head_dim);
  return {all.narrow(1, 0, shape.heads), all.narrow(1, shape.heads, shape.kv_heads),
          all.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads)};
}

at::Tensor pack_context(const at::Tensor& context) {
  return context.permute({2, 0, 1, 3})
      .reshape({context.size(2), context.size(0), context.size(1) * context.size(3)})
      .contiguous();
}

at::Tensor repeat_over_group(const at::Tensor& kv, int64_t group) {
  if (group == 1) return kv;
  return kv.unsqueeze(2)
      .expand({kv.size(0), kv.size(1), group, kv.size(2), kv.size(3)})
      .reshape({kv.size(0), kv.size(1) * group, kv.size(2), kv.size(3)});
}

at::Tensor sum_over_group(const at::Tensor& per_query_head, int64_t kv_heads) {
  if (per_query_head.size(1) == kv_heads) return per_query_head;
  return per_query_head.unflatten(1, {kv_heads, per_query_head.size(1) / kv_heads}).sum(2);
}

namespace {

/// Whether heads [B, n, S, D] lie as rows [S, B, n * D].
bool lie_as_rows(const at::Tensor& heads) {
  const int64_t batch = heads.size(0), width = heads.size(1) * heads.size(3);
  const auto apart = [&](int64_t dim, int64_t distance) {
    return heads.size(dim) == 1 || heads.stride(dim) == distance;
  };
  return apart(3, 1) && apart(1, heads.size(3)) && apart(0, width) && apart(2, batch * width);
}

/// Rows of each into grad_qkv, and their sums on the way.
void pack_and_sum(const Views& gradient, at::Tensor& grad_qkv, at::Tensor& totals) {
  const int64_t rows = grad_qkv.size(0) * grad_qkv.size(1);
  int64_t column = 0;
  for (const at::Tensor* heads : {&gradient.q, &gradient.k, &gradient.v}) {
    const int64_t columns = heads->size(1) * heads->size(3);
    at::Tensor to = grad_qkv.narrow(2, column, columns), total = totals.narrow(0, column, columns);
    const at::Tensor partial =
        at::empty({cuda::column_sum_blocks(rows, columns), columns}, totals.options());
    cuda::add_column_sums({.element = element_of(grad_qkv),
                           .x = heads->const_data_ptr(),
                           .partial = partial.data_ptr<float>(),
                           .total = total.data_ptr<float>(),
                           .rows = rows,
                           .columns = columns,
                           .copy = to.mutable_data_ptr(),
                           .copy_stride = grad_qkv.size(2)},
                          cuda::stream_of(grad_qkv));
    column += columns;
  }
  cuda::check_launch("causal_attention_backward");
}

}  // namespace

void pack_gradient(const Views& gradient, at::Tensor& grad_qkv, const AttentionShape& shape,
                   const RotaryTable* rotated_by, ColumnTotals* totals) {
  const auto fits = [&](const at::Tensor& heads) {
    return heads.scalar_type() == grad_qkv.scalar_type() && heads.stride(3) == 1;
  };
  if (takes_cuda_kernels(grad_qkv) && totals != nullptr && totals->totals.defined() &&
      rotated_by == nullptr && fits(gradient.q) && fits(gradient.k) && fits(gradient.v) &&
      lie_as_rows(gradient.q) && lie_as_rows(gradient.k) && lie_as_rows(gradient.v)) {
    pack_and_sum(gradient, grad_qkv, totals->totals);
    totals->added = true;
    return;
  }
  if (takes_cuda_kernels(grad_qkv) && shape.head_dim % 2 == 0 && fits(gradient.q) &&
      fits(gradient.k) && fits(gradient.v)) {
    const auto strided = [](const at::Tensor& heads) {  // [B, n, S, D]
      return cuda::StridedHeads{.data = heads.const_data_ptr(),
                                .position = heads.stride(2),
                                .batch = heads.stride(0),
                                .head = heads.stride(1)};
    };
    cuda::pack_heads(
        {.element = element_of(grad_qkv),
         .q = strided(gradient.q),
         .k = strided(gradient.k),
         .v = strided(gradient.v),
         .packed = grad_qkv.mutable_data_ptr(),
         .rotation =
             rotated_by != nullptr ? rotation_of(*rotated_by, Rotation::inverse) : cuda::Rotation{},
         .positions = grad_qkv.size(0),
         .batch = grad_qkv.size(1),
         .heads = shape.heads,
         .kv_heads = shape.kv_heads,
         .head_dim = shape.head_dim},
        cuda::stream_of(grad_qkv));
    cuda::check_launch("causal_attention_backward");
    return;
  }
  const Views out = split(grad_qkv, shape);
  out.q.copy_(gradient.q);
  out.k.copy_(gradient.k);
  out.v.copy_(gradient.v);
  if (rotated_by != nullptr)
    rotate_(grad_qkv, *rotated_by, shape.heads + shape.kv_heads, shape.head_dim, Rotation::inverse);
}

void check_documents(const Documents* documents, const at::Tensor& qkv, const char* function) {
  if (documents == nullptr) return;
  const at::Tensor& ends = documents->ends;
  const int64_t positions = qkv.size(0);
  expect(qkv.size(1) == 1, function, "be one sequence of documents", qkv.sizes());
  expect(ends.defined() && ends.dim() == 1 && ends.numel() >= 2 && ends.is_contiguous() &&
             ends.scalar_type() == at::kInt && ends.device() == qkv.device(),
         function, "get ends [n + 1] int32 on the device of qkv",
         ends.defined() ? ends.sizes() : at::IntArrayRef());
  expect(documents->longest > 0, function, "get documents with a bound of their length",
         {documents->longest});
  if (!ends.is_cpu()) return;
  const int32_t* end = ends.const_data_ptr<int32_t>();
  const auto refuse = [&](const char* constraint, int64_t entry) {
    throw InternalError(problem(cat("kernels::", function, ": ends[", entry, "] of documents is ",
                                    end[entry], " for ", positions, " tokens"))
                            .must(constraint));
  };
  if (end[0] != 0) refuse("be 0", 0);
  for (int64_t i = 1; i < ends.numel(); ++i) {
    if (end[i] < end[i - 1]) refuse("not lie before the end of the document before", i);
    if (end[i] - end[i - 1] > documents->longest)
      refuse(cat("lie at most ", documents->longest, " behind the one before").c_str(), i);
  }
  if (end[ends.numel() - 1] != positions) refuse("be the number of tokens", ends.numel() - 1);
}

}  // namespace tptrain::kernels::attention
