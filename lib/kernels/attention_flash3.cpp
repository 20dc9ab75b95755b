// Causal attention by FlashAttention-3, where the program was built with it: bf16 on Hopper, whole
// sequences.
#include "kernels/attention_parts.h"
#include "kernels/cuda/flash3.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::attention {

namespace {

cuda::Flash3 call_of(const at::Tensor& qkv, const AttentionShape& shape) {
  return {.positions = qkv.size(0),
          .batch = qkv.size(1),
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim};
}

void fill(cuda::Flash3& call, const at::Tensor& qkv, const AttentionResult& result) {
  call.multiprocessors = cuda::multiprocessors();
  call.qkv = qkv.const_data_ptr();
  call.context = result.context.mutable_data_ptr();
  call.logsumexp = result.logsumexp.mutable_data_ptr<float>();
}

}  // namespace

bool flash3_serves(const at::Tensor& qkv, const AttentionShape& shape) {
  return cuda::has_flash3() && qkv.scalar_type() == at::kBFloat16 &&
         cuda::takes_flash3(call_of(qkv, shape), cuda::capability());
}

AttentionResult flash3_forward(const at::Tensor& qkv, const AttentionShape& shape) {
  cuda::Flash3 call = call_of(qkv, shape);
  AttentionResult result = {
      .context =
          at::empty({call.positions, call.batch, shape.heads * shape.head_dim}, qkv.options()),
      .logsumexp =
          at::empty({call.batch, shape.heads, call.positions}, qkv.options().dtype(at::kFloat))};
  fill(call, qkv, result);
  const at::Tensor next_tile = at::zeros({1}, qkv.options().dtype(at::kInt));
  call.next_tile = next_tile.mutable_data_ptr<int32_t>();
  cuda::flash3_forward(call, cuda::stream_of(qkv));
  return result;
}

Views flash3_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                      const AttentionResult& forward, at::Tensor& grad_qkv,
                      const AttentionShape& shape) {
  cuda::Flash3 call = call_of(qkv, shape);
  fill(call, qkv, forward);
  call.grad_context = grad_context.const_data_ptr();
  call.grad_qkv = grad_qkv.mutable_data_ptr();
  const at::TensorOptions fp32 = qkv.options().dtype(at::kFloat);
  const at::Tensor sum_q = at::empty({call.sum_numel()}, fp32);
  const at::Tensor numbers = at::empty({2, call.row_numel()}, fp32);
  call.sum_q = sum_q.mutable_data_ptr<float>();
  for (int i = 0; i < 2; ++i) call.rows[i] = numbers.select(0, i).mutable_data_ptr<float>();
  at::Tensor sum_kv;
  if (call.kv_sum_numel() > 0) {
    sum_kv = at::zeros({2, call.kv_sum_numel()}, fp32);
    call.sum_k = sum_kv.select(0, 0).mutable_data_ptr<float>();
    call.sum_v = sum_kv.select(0, 1).mutable_data_ptr<float>();
  }
  cuda::flash3_backward(call, cuda::stream_of(qkv));
  return split(grad_qkv, shape);
}

}  // namespace tptrain::kernels::attention
