// SwiGLU: dispatch to the CPU loops or the CUDA kernels.
#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"
#include "kernels/swiglu_product.h"

namespace tptrain::kernels {

namespace {

std::vector<int64_t> with_last(const at::Tensor& tensor, int64_t last) {
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.back() = last;
  return sizes;
}

/// Null where nobody asked.
uint32_t* amax_bits_of(const at::Tensor& amax, const at::Tensor& like, const char* function) {
  if (!amax.defined()) return nullptr;
  expect(takes_cuda_kernels(like) && like.scalar_type() == at::kBFloat16 && amax.numel() > 0 &&
             amax.scalar_type() == at::kInt && amax.device() == like.device(),
         function, "find the largest magnitude of bf16 on CUDA alone, as fp8_amax() says",
         like.sizes());
  return static_cast<uint32_t*>(amax.mutable_data_ptr());
}

void swiglu_into(at::Tensor& output, const at::Tensor& gate_up, const at::Tensor& amax) {
  const int64_t ffn = gate_up.size(-1) / 2;
  uint32_t* amax_bits = amax_bits_of(amax, gate_up, "swiglu");
  if (takes_cuda_kernels(gate_up)) {
    cuda::swiglu(element_of(gate_up), gate_up.const_data_ptr(), output.mutable_data_ptr(),
                 amax_bits, rows_of(gate_up), ffn, cuda::stream_of(gate_up));
    cuda::check_launch("swiglu");
    return;
  }
  if (output.numel() == 0) return;
  with_element_of(gate_up, [&]<typename T>(T) {
    const T* in = read<T>(gate_up);
    T* out = write<T>(output);
    cpu::parallel_rows(
        output.numel() / ffn, cpu::grain_of(2 * ffn),
        [&](int64_t begin, int64_t end) { cpu::swiglu_rows(in, out, ffn, begin, end); });
  });
}

void swiglu_backward_into(at::Tensor& grad_gate_up, const at::Tensor& grad_output,
                          const at::Tensor& gate_up, const at::Tensor& amax) {
  const int64_t ffn = gate_up.size(-1) / 2;
  uint32_t* amax_bits = amax_bits_of(amax, gate_up, "swiglu_backward");
  if (takes_cuda_kernels(gate_up)) {
    cuda::swiglu_backward(element_of(gate_up), grad_output.const_data_ptr(),
                          gate_up.const_data_ptr(), grad_gate_up.mutable_data_ptr(), amax_bits,
                          rows_of(gate_up), ffn, cuda::stream_of(gate_up));
    cuda::check_launch("swiglu_backward");
    return;
  }
  if (grad_output.numel() == 0) return;
  with_element_of(gate_up, [&]<typename T>(T) {
    const T* grad = read<T>(grad_output);
    const T* in = read<T>(gate_up);
    T* out = write<T>(grad_gate_up);
    cpu::parallel_rows(grad_output.numel() / ffn, cpu::grain_of(2 * ffn),
                       [&](int64_t begin, int64_t end) {
                         cpu::swiglu_backward_rows(grad, in, out, ffn, begin, end);
                       });
  });
}

void check_swiglu_input(const at::Tensor& gate_up) {
  expect(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0, "swiglu", "have an even last size",
         gate_up.sizes());
  expect_contiguous(gate_up, "swiglu");
}
void check_swiglu_gradient(const at::Tensor& grad_output, const at::Tensor& gate_up) {
  expect(grad_output.numel() * 2 == gate_up.numel() && grad_output.size(-1) * 2 == gate_up.size(-1),
         "swiglu_backward", "have a grad_output of half its columns", gate_up.sizes());
  expect_contiguous(gate_up, "swiglu_backward");
  expect_contiguous(grad_output, "swiglu_backward");
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& amax) {  // [.., 2F]
  check_swiglu_input(gate_up);
  at::Tensor output = at::empty(with_last(gate_up, gate_up.size(-1) / 2), gate_up.options());
  swiglu_into(output, gate_up, amax);
  return output;
}

at::Tensor swiglu_backward(const at::Tensor& grad_output, const at::Tensor& gate_up,
                           const at::Tensor& amax) {  // [.., F], [.., 2F]
  check_swiglu_gradient(grad_output, gate_up);
  at::Tensor grad_gate_up = at::empty_like(gate_up);
  swiglu_backward_into(grad_gate_up, grad_output, gate_up, amax);
  return grad_gate_up;
}

void swiglu_out(at::Tensor& output, const at::Tensor& gate_up) {
  check_swiglu_input(gate_up);
  expect(output.numel() * 2 == gate_up.numel(), "swiglu_out", "have half the columns of its input",
         output.sizes());
  expect_contiguous(output, "swiglu_out");
  swiglu_into(output, gate_up, {});
}

void swiglu_backward_out(at::Tensor& grad_gate_up, const at::Tensor& grad_output,
                         const at::Tensor& gate_up) {
  check_swiglu_gradient(grad_output, gate_up);
  expect(grad_gate_up.sizes() == gate_up.sizes(), "swiglu_backward_out", "be of its input's size",
         grad_gate_up.sizes());
  expect_contiguous(grad_gate_up, "swiglu_backward_out");
  swiglu_backward_into(grad_gate_up, grad_output, gate_up, {});
}

}  // namespace tptrain::kernels
