// A weight's gradient with the sums of its squares, where there is a kernel for it.
#include "kernels/cuda/weight_gradient.h"

#include <c10/core/DeviceGuard.h>

#include "kernels/composition.h"

namespace tptrain::kernels {

namespace {

// Rows of bf16, which may lie apart.
bool is_rows(const at::Tensor& matrix) {
  return matrix.scalar_type() == at::kBFloat16 && matrix.stride(1) == 1 &&
         matrix.stride(0) >= matrix.size(1);
}

}  // namespace

int64_t weight_gradient_squares(int64_t out, int64_t in, at::Device device) {
  if (!device.is_cuda() || !cuda::built()) return 0;
  const c10::DeviceGuard guard(device);
  return cuda::squares_of_gradient(out, in);
}

bool weight_gradient_squares_pay(int64_t out, int64_t in, at::Device device) {
  if (weight_gradient_squares(out, in, device) == 0) return false;
  const c10::DeviceGuard guard(device);
  return cuda::fills_device_with_gradient(out, in);
}

bool weight_gradient_with_squares(at::Tensor& grad, const at::Tensor& grad_output,
                                  const at::Tensor& input, at::Tensor& squares) {
  expect(grad_output.dim() == 2 && input.dim() == 2 && grad.dim() == 2 &&
             grad_output.size(0) == input.size(0) && grad.size(0) == grad_output.size(1) &&
             grad.size(1) == input.size(1),
         "weight_gradient_with_squares", "be [out, in] of dy [T, out] and x [T, in]", grad.sizes());
  if (!grad.is_cuda() || grad.scalar_type() != at::kFloat || !grad.is_contiguous() ||
      !is_rows(grad_output) || !is_rows(input))
    return false;
  const c10::DeviceGuard guard(grad.device());
  const cuda::WeightGradient args{.grad = grad.mutable_data_ptr<float>(),
                                  .dy = grad_output.const_data_ptr(),
                                  .x = input.const_data_ptr(),
                                  .tokens = input.size(0),
                                  .out = grad.size(0),
                                  .in = grad.size(1),
                                  .dy_distance = grad_output.stride(0),
                                  .x_distance = input.stride(0),
                                  .squares = squares.mutable_data_ptr<double>()};
  if (!cuda::takes_weight_gradient(args)) return false;
  expect(squares.dim() == 1 && squares.size(0) == cuda::squares_of_gradient(args.out, args.in) &&
             squares.device() == grad.device(),
         "weight_gradient_with_squares", "be as many sums as the gradient has pieces",
         squares.sizes());
  cuda::weight_gradient(args, cuda::stream_of(grad));
  cuda::check_launch("weight_gradient_with_squares");
  return true;
}

}  // namespace tptrain::kernels
