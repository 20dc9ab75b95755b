#include "kernels/swiglu_product.h"

#include <c10/core/DeviceGuard.h>

#include "kernels/composition.h"
#include "kernels/cuda/swiglu_product.h"

namespace tptrain::kernels {

namespace {

void check_swiglu(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& wide,
                  int64_t ffn, const char* function) {
  expect(a.dim() == 2 && weight.dim() == 2 && wide.dim() == 2 && wide.size(0) == a.size(0) &&
             wide.size(1) == 2 * ffn,
         function, "be [T, 2F] of rows [T, K] and a weight that has F or 2F of them", wide.sizes());
  expect_contiguous(weight, function);
  expect_contiguous(wide, function);
}

bool on_cuda_in_bf16(const at::Tensor& a) {
  return takes_cuda_kernels(a) && a.scalar_type() == at::kBFloat16 && a.stride(1) == 1 &&
         a.stride(0) >= a.size(1);
}

}  // namespace

void swiglu_product_out(at::Tensor& pre, at::Tensor& activation, const at::Tensor& x,
                        const at::Tensor& weight) {
  const int64_t ffn = activation.size(-1);
  check_swiglu(x, weight, pre, ffn, "swiglu_product_out");
  expect_contiguous(activation, "swiglu_product_out");
  expect(weight.size(0) == 2 * ffn && weight.size(1) == x.size(1), "swiglu_product_out",
         "have a weight [2F, K]", weight.sizes());
  if (on_cuda_in_bf16(x)) {
    const c10::DeviceGuard guard(x.device());
    const cuda::SwigluProduct args{.a = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .out = pre.mutable_data_ptr(),
                                   .activation = activation.mutable_data_ptr(),
                                   .tokens = x.size(0),
                                   .k = x.size(1),
                                   .ffn = ffn,
                                   .a_distance = x.stride(0)};
    if (cuda::takes_swiglu_product(args)) {
      cuda::swiglu_product(args, cuda::stream_of(x));
      return cuda::check_launch("swiglu_product_out");
    }
  }
  product_out(pre, x, weight.t());
  swiglu_out(activation, pre);
}

void swiglu_backward_product_out(at::Tensor& out, const at::Tensor& grad, const at::Tensor& weight,
                                 const at::Tensor& pre) {
  const int64_t ffn = weight.size(-1);
  check_swiglu(grad, weight, out, ffn, "swiglu_backward_product_out");
  expect(out.sizes() == pre.sizes() && weight.size(0) == grad.size(1),
         "swiglu_backward_product_out", "be of one size with pre, and a weight [K, F]",
         pre.sizes());
  expect_contiguous(pre, "swiglu_backward_product_out");
  if (on_cuda_in_bf16(grad)) {
    const c10::DeviceGuard guard(grad.device());
    const cuda::SwigluProduct args{.a = grad.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .pre = pre.const_data_ptr(),
                                   .out = out.mutable_data_ptr(),
                                   .tokens = grad.size(0),
                                   .k = grad.size(1),
                                   .ffn = ffn,
                                   .a_distance = grad.stride(0)};
    if (cuda::takes_swiglu_product(args)) {
      cuda::swiglu_backward_product(args, cuda::stream_of(grad));
      return cuda::check_launch("swiglu_backward_product_out");
    }
  }
  swiglu_backward_out(out, product(grad, weight), pre);
}

}  // namespace tptrain::kernels
