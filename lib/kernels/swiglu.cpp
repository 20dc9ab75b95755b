// SwiGLU: dispatch to the CPU loops or the CUDA kernels.
#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

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

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& amax) {  // [.., 2F]
  expect(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0, "swiglu", "have an even last size",
         gate_up.sizes());
  expect_contiguous(gate_up, "swiglu");
  const int64_t ffn = gate_up.size(-1) / 2;
  uint32_t* amax_bits = amax_bits_of(amax, gate_up, "swiglu");
  if (takes_cuda_kernels(gate_up)) {
    at::Tensor output = at::empty(with_last(gate_up, ffn), gate_up.options());
    cuda::swiglu(element_of(gate_up), gate_up.const_data_ptr(), output.mutable_data_ptr(),
                 amax_bits, rows_of(gate_up), ffn, cuda::stream_of(gate_up));
    cuda::check_launch("swiglu");
    return output;
  }
  at::Tensor output = at::empty(with_last(gate_up, ffn), gate_up.options());
  if (output.numel() == 0) return output;
  with_element_of(gate_up, [&]<typename T>(T) {
    const T* in = read<T>(gate_up);
    T* out = write<T>(output);
    cpu::parallel_rows(
        output.numel() / ffn, cpu::grain_of(2 * ffn),
        [&](int64_t begin, int64_t end) { cpu::swiglu_rows(in, out, ffn, begin, end); });
  });
  return output;
}

at::Tensor swiglu_backward(const at::Tensor& grad_output, const at::Tensor& gate_up,
                           const at::Tensor& amax) {  // [.., F], [.., 2F]
  const int64_t ffn = gate_up.size(-1) / 2;
  expect(grad_output.numel() * 2 == gate_up.numel() && grad_output.size(-1) == ffn,
         "swiglu_backward", "have a grad_output of half its columns", gate_up.sizes());
  expect_contiguous(gate_up, "swiglu_backward");
  expect_contiguous(grad_output, "swiglu_backward");
  at::Tensor grad_gate_up = at::empty_like(gate_up);
  uint32_t* amax_bits = amax_bits_of(amax, gate_up, "swiglu_backward");
  if (takes_cuda_kernels(gate_up)) {
    cuda::swiglu_backward(element_of(gate_up), grad_output.const_data_ptr(),
                          gate_up.const_data_ptr(), grad_gate_up.mutable_data_ptr(), amax_bits,
                          rows_of(gate_up), ffn, cuda::stream_of(gate_up));
    cuda::check_launch("swiglu_backward");
    return grad_gate_up;
  }
  if (grad_output.numel() == 0) return grad_gate_up;
  with_element_of(gate_up, [&]<typename T>(T) {
    const T* grad = read<T>(grad_output);
    const T* in = read<T>(gate_up);
    T* out = write<T>(grad_gate_up);
    cpu::parallel_rows(grad_output.numel() / ffn, cpu::grain_of(2 * ffn),
                       [&](int64_t begin, int64_t end) {
                         cpu::swiglu_backward_rows(grad, in, out, ffn, begin, end);
                       });
  });
  return grad_gate_up;
}

}  // namespace tptrain::kernels
