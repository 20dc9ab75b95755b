// Dropout: dispatch to the CPU loop or the CUDA kernel, which draw the same mask.
#include <cmath>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dropout_heads.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

/// Words below it drop their element.
uint32_t threshold_of(double probability) {
  if (!(probability >= 0.0 && probability < 1.0)) {
    throw InternalError(
        problem(cat("kernels: dropout of probability ", probability)).must("lie in [0, 1)"));
  }
  return static_cast<uint32_t>(std::ldexp(probability, 32));
}

void drop_by_loops(const at::Tensor& x, const Dropout& dropout, int64_t first_position,
                   uint32_t threshold) {
  with_element_of(x, [&]<typename T>(T) {
    cpu::DropoutRows<T> args;
    args.x = write<T>(x);
    args.positions = x.size(1);
    args.batch = x.size(2);
    args.width = x.size(3);
    args.first_head = dropout.first_head;
    args.first_position = first_position;
    args.first_sample = dropout.first_sample;
    args.first_element = dropout.first_element;
    args.key = dropout.key;
    args.threshold = threshold;
    args.scale = static_cast<float>(1.0 / (1.0 - dropout.probability));
    cpu::parallel_rows(x.numel() / args.width, cpu::grain_of(args.width),
                       [&](int64_t begin, int64_t end) { cpu::dropout_rows(args, begin, end); });
  });
}

void drop_by_kernel(const at::Tensor& x, const Dropout& dropout, int64_t first_position,
                    uint32_t threshold) {
  expect_contiguous(x, "dropout");
  cuda::dropout({.element = element_of(x),
                 .x = x.mutable_data_ptr(),
                 .rows = x.size(0) * x.size(1) * x.size(2),
                 .positions = x.size(1),
                 .batch = x.size(2),
                 .width = x.size(3),
                 .first_head = dropout.first_head,
                 .first_element = dropout.first_element,
                 .first_position = first_position,
                 .first_sample = dropout.first_sample,
                 .key = {dropout.key[0], dropout.key[1]},
                 .threshold = threshold,
                 .scale = static_cast<float>(1.0 / (1.0 - dropout.probability))},
                cuda::stream_of(x));
  cuda::check_launch("dropout");
}

}  // namespace

void dropout_heads_(const at::Tensor& x, const Dropout& dropout, int64_t first_position) {
  const uint32_t threshold = threshold_of(dropout.probability);
  if (dropout.probability == 0.0 || x.numel() == 0) return;
  if (takes_cuda_kernels(x)) {
    drop_by_kernel(x, dropout, first_position, threshold);
  } else {
    drop_by_loops(x, dropout, first_position, threshold);
  }
}

void dropout_(at::Tensor& x, const Dropout& dropout, int64_t first_position) {
  expect(x.dim() == 3, "dropout_", "be [S, B, H]", x.sizes());
  expect_contiguous(x, "dropout_");
  Dropout without_head = dropout;
  without_head.first_head = 0;
  dropout_heads_(x.unsqueeze(0), without_head, first_position);
}

}  // namespace tptrain::kernels
