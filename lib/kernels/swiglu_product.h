// Products with SwiGLU of their result, or with its derivative. On CUDA in bf16 inside the product
// where there is a kernel for it; elsewhere one after the other, with the same bits where the
// product has them.
#pragma once

#include <ATen/core/Tensor.h>

namespace tptrain::kernels {

/// pre [T, 2F] = x weight^T, activation [T, F] = swiglu(pre); x [T, K], weight [2F, K], gates
/// first. All but x contiguous, whose rows may lie apart.
void swiglu_product_out(at::Tensor& pre, at::Tensor& activation, const at::Tensor& x,
                        const at::Tensor& weight);
/// out [T, 2F] = the gradient at pre [T, 2F] of swiglu, of whose result it is grad weight; grad [T,
/// K], weight [K, F]. All but grad contiguous, whose rows may lie apart.
void swiglu_backward_product_out(at::Tensor& out, const at::Tensor& grad, const at::Tensor& weight,
                                 const at::Tensor& pre);

/// swiglu and swiglu_backward of kernels.h into memory that is there.
void swiglu_out(at::Tensor& output, const at::Tensor& gate_up);
void swiglu_backward_out(at::Tensor& grad_gate_up, const at::Tensor& grad_output,
                         const at::Tensor& gate_up);

}  // namespace tptrain::kernels
