// Products with GELU (tanh form) of their result, or times its derivative. On CUDA in bf16 inside
// the product where that is measured to be faster than a kernel of its own behind it (the
// activation then is that of the sum in fp32, not of the sum rounded to bf16); elsewhere one after
// the other.
#pragma once

#include <ATen/core/Tensor.h>

namespace tptrain::kernels {

/// pre [M, N] = a b + bias, activation [M, N] = gelu(pre); a [M, K], b [K, N], bias [N] or
/// undefined. Both outputs contiguous.
void gelu_product_out(at::Tensor& pre, at::Tensor& activation, const at::Tensor& a,
                      const at::Tensor& b, const at::Tensor& bias);
/// out [M, N] = (a b) times the derivative of gelu at pre [M, N]; both contiguous.
void gelu_backward_product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                               const at::Tensor& pre);

/// gelu_tanh and gelu_tanh_backward of kernels.h into memory that is there; grad_x may be that of
/// grad_output.
void gelu_tanh_out(at::Tensor& output, const at::Tensor& x);
void gelu_tanh_backward_out(at::Tensor& grad_x, const at::Tensor& grad_output, const at::Tensor& x);

}  // namespace tptrain::kernels
