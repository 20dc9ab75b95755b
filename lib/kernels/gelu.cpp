// GELU: dispatch to the CPU loops or the ATen composition.
#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

at::Tensor gelu_tanh(const at::Tensor& x) {
  expect_contiguous(x, "gelu_tanh");
  if (takes_cuda_kernels(x)) {
    at::Tensor output = at::empty_like(x);
    cuda::gelu_tanh(element_of(x), x.const_data_ptr(), output.mutable_data_ptr(), x.numel(),
                    cuda::stream_of(x));
    cuda::check_launch("gelu_tanh");
    return output;
  }
  if (!takes_cpu_loops(x)) return at::gelu(x.to(compute_type(x)), "tanh").to(x.scalar_type());
  at::Tensor output = at::empty_like(x);
  with_element_of(x, [&]<typename T>(T) {
    const T* in = read<T>(x);
    T* out = write<T>(output);
    cpu::parallel_rows(x.numel(), cpu::grain_of(1), [&](int64_t begin, int64_t end) {
      cpu::gelu_elements(in, out, begin, end);
    });
  });
  return output;
}

at::Tensor gelu_tanh_backward(const at::Tensor& grad_output, const at::Tensor& x) {
  expect(grad_output.sizes() == x.sizes(), "gelu_tanh_backward", "have a grad_output of its size",
         x.sizes());
  expect_contiguous(x, "gelu_tanh_backward");
  expect_contiguous(grad_output, "gelu_tanh_backward");
  if (takes_cuda_kernels(x)) {
    at::Tensor grad_x = at::empty_like(x);
    cuda::gelu_tanh_backward(element_of(x), grad_output.const_data_ptr(), x.const_data_ptr(),
                             grad_x.mutable_data_ptr(), x.numel(), cuda::stream_of(x));
    cuda::check_launch("gelu_tanh_backward");
    return grad_x;
  }
  if (!takes_cpu_loops(x)) {
    const at::ScalarType type = compute_type(x);
    return at::gelu_backward(grad_output.to(type), x.to(type), "tanh").to(x.scalar_type());
  }
  at::Tensor grad_x = at::empty_like(x);
  with_element_of(x, [&]<typename T>(T) {
    const T* grad = read<T>(grad_output);
    const T* in = read<T>(x);
    T* out = write<T>(grad_x);
    cpu::parallel_rows(x.numel(), cpu::grain_of(1), [&](int64_t begin, int64_t end) {
      cpu::gelu_backward_elements(grad, in, out, begin, end);
    });
  });
  return grad_x;
}

}  // namespace tptrain::kernels
