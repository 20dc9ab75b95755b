// GELU: dispatch to the CPU loops or the CUDA kernels.
#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/gelu_product.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

at::Tensor gelu_tanh(const at::Tensor& x) {
  at::Tensor output = at::empty_like(x);
  gelu_tanh_out(output, x);
  return output;
}

void gelu_tanh_out(at::Tensor& output, const at::Tensor& x) {
  expect_contiguous(x, "gelu_tanh");
  expect(output.sizes() == x.sizes(), "gelu_tanh", "have an output of its size", x.sizes());
  expect_contiguous(output, "gelu_tanh");
  if (takes_cuda_kernels(x)) {
    cuda::gelu_tanh(element_of(x), x.const_data_ptr(), output.mutable_data_ptr(), x.numel(),
                    cuda::stream_of(x));
    cuda::check_launch("gelu_tanh");
    return;
  }
  with_element_of(x, [&]<typename T>(T) {
    const T* in = read<T>(x);
    T* out = write<T>(output);
    cpu::parallel_rows(x.numel(), cpu::grain_of(1), [&](int64_t begin, int64_t end) {
      cpu::gelu_elements(in, out, begin, end);
    });
  });
}

at::Tensor gelu_tanh_backward(const at::Tensor& grad_output, const at::Tensor& x) {
  at::Tensor grad_x = at::empty_like(x);
  gelu_tanh_backward_out(grad_x, grad_output, x);
  return grad_x;
}

void gelu_tanh_backward_out(at::Tensor& grad_x, const at::Tensor& grad_output,
                            const at::Tensor& x) {
  expect(grad_output.sizes() == x.sizes() && grad_x.sizes() == x.sizes(), "gelu_tanh_backward",
         "have a grad_output of its size", x.sizes());
  expect_contiguous(x, "gelu_tanh_backward");
  expect_contiguous(grad_output, "gelu_tanh_backward");
  expect_contiguous(grad_x, "gelu_tanh_backward");
  if (takes_cuda_kernels(x)) {
    cuda::gelu_tanh_backward(element_of(x), grad_output.const_data_ptr(), x.const_data_ptr(),
                             grad_x.mutable_data_ptr(), x.numel(), cuda::stream_of(x));
    cuda::check_launch("gelu_tanh_backward");
    return;
  }
  with_element_of(x, [&]<typename T>(T) {
    const T* grad = read<T>(grad_output);
    const T* in = read<T>(x);
    T* out = write<T>(grad_x);
    cpu::parallel_rows(x.numel(), cpu::grain_of(1), [&](int64_t begin, int64_t end) {
      cpu::gelu_backward_elements(grad, in, out, begin, end);
    });
  });
}

}  // namespace tptrain::kernels
