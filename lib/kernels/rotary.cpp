// Rotary embedding: the table, and the rotation in place on packed q and k heads.
#include <cmath>
#include <vector>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

RotaryTable rotary_table(int64_t first_position, int64_t length, int64_t head_dim, double theta,
                         at::Device device) {
  expect(head_dim > 0 && head_dim % 2 == 0, "rotary_table", "have an even head_dim",
         {first_position, length, head_dim});
  std::vector<double> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i)
    frequencies.push_back(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
  return rotary_table(first_position, length, frequencies, device);
}

RotaryTable rotary_table(int64_t first_position, int64_t length,
                         const std::vector<double>& frequencies, at::Device device) {
  const auto half = static_cast<int64_t>(frequencies.size());
  at::Tensor cos = at::empty({length, half}, at::kFloat);
  at::Tensor sin = at::empty({length, half}, at::kFloat);
  float* cos_data = cos.data_ptr<float>();
  float* sin_data = sin.data_ptr<float>();
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t s = 0; s < length; ++s) {
      const double angle =
          static_cast<double>(first_position + s) * frequencies[static_cast<size_t>(i)];
      cos_data[s * half + i] = static_cast<float>(std::cos(angle));
      sin_data[s * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return {cos.to(device), sin.to(device)};
}

void rotate_(at::Tensor& qkv, const RotaryTable& table, int64_t rotated_heads, int64_t head_dim,
             Rotation direction) {
  expect(qkv.dim() == 3, "rotate_", "be [S, B, heads * D]", qkv.sizes());
  expect(rotated_heads >= 0 && rotated_heads * head_dim <= qkv.size(2) && head_dim % 2 == 0,
         "rotate_", "hold the rotated heads, of even size", qkv.sizes());
  expect(table.cos.dim() == 2 && table.cos.size(0) == qkv.size(0) &&
             table.cos.size(1) == head_dim / 2 && table.sin.sizes() == table.cos.sizes(),
         "rotate_", "have a table of [S, D/2]", table.cos.sizes());
  expect_contiguous(qkv, "rotate_");
  expect_contiguous(table.cos, "rotate_");
  expect_contiguous(table.sin, "rotate_");
  const int64_t positions = qkv.size(0);
  const int64_t batch = qkv.size(1);
  if (takes_cuda_kernels(qkv)) {
    cuda::rotate({.element = element_of(qkv),
                  .packed = qkv.mutable_data_ptr(),
                  .rotation = rotation_of(table, direction),
                  .positions = positions,
                  .batch = batch,
                  .width = qkv.size(2),
                  .heads = rotated_heads,
                  .head_dim = head_dim},
                 cuda::stream_of(qkv));
    cuda::check_launch("rotate_");
    return;
  }
  with_element_of(qkv, [&]<typename T>(T) {
    cpu::Rotary<T> args;
    args.packed = write<T>(qkv);
    args.cos = read<float>(table.cos);
    args.sin = read<float>(table.sin);
    args.batch = batch;
    args.width = qkv.size(2);
    args.heads = rotated_heads;
    args.head_dim = head_dim;
    args.sign = direction == Rotation::inverse ? -1.0f : 1.0f;
    cpu::parallel_rows(
        positions, cpu::grain_of(batch * rotated_heads * head_dim),
        [&](int64_t begin, int64_t end) { cpu::rotary_positions(args, begin, end); });
  });
}

}  // namespace tptrain::kernels
