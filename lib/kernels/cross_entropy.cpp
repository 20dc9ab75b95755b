// Vocab-parallel cross entropy in steps, without full logits and without one-hot tensors: dispatch
// to the CPU loops or the CUDA kernels.
#include <cmath>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

constexpr int64_t kIgnored = -100;

/// [T, V_local]: rows that begin at equal distances; on the CPU one right after the other.
void check_logits(const at::Tensor& logits, const char* function) {
  expect(logits.dim() == 2 && logits.size(1) > 0, function, "be [T, V_local]", logits.sizes());
  if (!logits.is_cuda()) return expect_contiguous(logits, function);
  expect(logits.stride(1) == 1 && logits.stride(0) >= logits.size(1), function,
         "have rows without gaps between their elements", logits.sizes());
}

void check_rows(const at::Tensor& matrix, const at::Tensor& targets, const char* function) {
  check_logits(matrix, function);
  expect(
      targets.dim() == 1 && targets.size(0) == matrix.size(0) && targets.scalar_type() == at::kLong,
      function, "have int64 targets [T]", targets.sizes());
  expect_contiguous(targets, function);
}

void check_sums(const at::Tensor& sums, const at::Tensor& row_max, const at::Tensor& targets,
                const char* function) {
  expect(sums.dim() == 2 && sums.size(0) == 2 && sums.size(1) == targets.size(0), function,
         "have sums [2, T]", sums.sizes());
  expect(row_max.numel() == targets.size(0), function, "have row_max [T]", row_max.sizes());
  expect_contiguous(sums, function);
  expect_contiguous(row_max, function);
  expect_contiguous(targets, function);
}

/// What every kernel takes.
cuda::Vocab kernel_args(const at::Tensor& logits, const at::Tensor& targets, int64_t vocab_begin) {
  return {.element = element_of(logits),
          .logits = const_cast<void*>(logits.const_data_ptr()),
          .targets = targets.const_data_ptr<int64_t>(),
          .vocab_begin = vocab_begin,
          .tokens = logits.size(0),
          .vocab = logits.size(1),
          .stride = logits.stride(0)};
}

/// Their memory.
VocabStatistics statistics_of(const at::Tensor& logits) {
  const at::TensorOptions options = logits.options().dtype(at::kFloat);
  return {at::empty({logits.size(0)}, options), at::empty({2, logits.size(0)}, options)};
}

}  // namespace

at::Tensor vocab_row_max(const at::Tensor& logits) {
  check_logits(logits, "vocab_row_max");
  if (logits.is_cuda()) return at::amax(logits, {1}).to(at::kFloat);
  at::Tensor row_max = at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
  float* out = row_max.data_ptr<float>();
  const int64_t vocab = logits.size(1);
  with_element_of(logits, [&]<typename T>(T) {
    const T* in = read<T>(logits);
    cpu::parallel_rows(logits.size(0), cpu::grain_of(vocab), [&](int64_t begin, int64_t end) {
      cpu::row_max_rows(in, out, vocab, begin, end);
    });
  });
  return row_max;
}

at::Tensor vocab_exp_(at::Tensor& logits, const at::Tensor& row_max, const at::Tensor& targets,
                      int64_t vocab_begin) {
  check_rows(logits, targets, "vocab_exp_");
  expect(row_max.numel() == logits.size(0), "vocab_exp_", "have row_max [T]", row_max.sizes());
  const int64_t tokens = logits.size(0);
  const int64_t vocab = logits.size(1);
  if (takes_cuda_kernels(logits)) {
    VocabStatistics statistics = vocab_statistics_(logits, targets, vocab_begin);
    vocab_rescale_(statistics.sums, logits, statistics.row_max, row_max, targets, vocab_begin);
    return statistics.sums;
  }
  at::Tensor sums = at::empty({2, tokens}, logits.options().dtype(at::kFloat));
  expect_contiguous(row_max, "vocab_exp_");
  with_element_of(logits, [&]<typename T>(T) {
    cpu::VocabExp<T> args;
    args.logits = write<T>(logits);
    args.row_max = read<float>(row_max);
    args.targets = targets.const_data_ptr<int64_t>();
    args.sum_exp = write<float>(sums);
    args.target_logit = args.sum_exp + tokens;
    args.vocab_begin = vocab_begin;
    args.vocab = vocab;
    cpu::parallel_rows(tokens, cpu::grain_of(vocab),
                       [&](int64_t begin, int64_t end) { cpu::vocab_exp_rows(args, begin, end); });
  });
  return sums;
}

VocabStatistics vocab_statistics_(at::Tensor& logits, const at::Tensor& targets,
                                  int64_t vocab_begin) {
  check_rows(logits, targets, "vocab_statistics_");
  if (!takes_cuda_kernels(logits)) {
    const at::Tensor row_max = vocab_row_max(logits);
    return {row_max, vocab_exp_(logits, row_max, targets, vocab_begin)};
  }
  const VocabStatistics result = statistics_of(logits);
  cuda::Vocab args = kernel_args(logits, targets, vocab_begin);
  args.row_max = result.row_max.data_ptr<float>();
  args.sums = result.sums.data_ptr<float>();
  cuda::vocab_statistics(args, cuda::stream_of(logits));
  cuda::check_launch("vocab_statistics_");
  return result;
}

bool vocab_keeps_logits(const at::Tensor& logits) { return takes_cuda_kernels(logits); }

void vocab_rescale_(at::Tensor& sums, const at::Tensor& logits, const at::Tensor& slice_max,
                    const at::Tensor& row_max, const at::Tensor& targets, int64_t vocab_begin) {
  check_rows(logits, targets, "vocab_rescale_");
  check_sums(sums, row_max, targets, "vocab_rescale_");
  check_sums(sums, slice_max, targets, "vocab_rescale_");
  expect(vocab_keeps_logits(logits), "vocab_rescale_", "still hold the logits", logits.sizes());
  cuda::Vocab args = kernel_args(logits, targets, vocab_begin);
  args.sums = sums.data_ptr<float>();
  args.slice_max = slice_max.const_data_ptr<float>();
  args.row_max = const_cast<float*>(row_max.const_data_ptr<float>());  // only read
  cuda::vocab_rescale(args, cuda::stream_of(logits));
  cuda::check_launch("vocab_rescale_");
}

at::Tensor cross_entropy_sums(const at::Tensor& sums, const at::Tensor& row_max,
                              const at::Tensor& targets) {
  check_sums(sums, row_max, targets, "cross_entropy_sums");
  const int64_t tokens = targets.size(0);
  if (takes_cuda_kernels(sums)) {
    at::Tensor result = at::empty({2}, sums.options());
    const at::Tensor partial =
        at::empty({cuda::cross_entropy_blocks(tokens), 2}, sums.options().dtype(at::kDouble));
    cuda::cross_entropy_sums({.sums = sums.const_data_ptr<float>(),
                              .row_max = row_max.const_data_ptr<float>(),
                              .targets = targets.const_data_ptr<int64_t>(),
                              .partial = partial.data_ptr<double>(),
                              .result = result.data_ptr<float>(),
                              .tokens = tokens},
                             cuda::stream_of(sums));
    cuda::check_launch("cross_entropy_sums");
    return result;
  }
  const float* sum_exp = read<float>(sums);
  const float* target_logit = sum_exp + tokens;
  const float* maximum = read<float>(row_max);
  const int64_t* target = targets.const_data_ptr<int64_t>();
  double loss = 0.0;
  double squares = 0.0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (target[t] == kIgnored) continue;
    const double log_sum = std::log(static_cast<double>(sum_exp[t]));
    const double logsumexp = static_cast<double>(maximum[t]) + log_sum;
    loss += log_sum - static_cast<double>(target_logit[t]);
    squares += logsumexp * logsumexp;
  }
  at::Tensor result = at::empty({2}, sums.options());
  result.data_ptr<float>()[0] = static_cast<float>(loss);
  result.data_ptr<float>()[1] = static_cast<float>(squares);
  return result;
}

void vocab_softmax_backward_(at::Tensor& exp, const at::Tensor& sums, const at::Tensor& row_max,
                             const at::Tensor& targets, int64_t vocab_begin,
                             const at::Tensor& scale, double z_loss) {
  check_rows(exp, targets, "vocab_softmax_backward_");
  check_sums(sums, row_max, targets, "vocab_softmax_backward_");
  expect(scale.numel() == 1, "vocab_softmax_backward_", "have a scalar scale", scale.sizes());
  const int64_t vocab = exp.size(1);
  if (takes_cuda_kernels(exp)) {
    cuda::Vocab args = kernel_args(exp, targets, vocab_begin);
    args.row_max = const_cast<float*>(row_max.const_data_ptr<float>());  // only read
    args.sums = const_cast<float*>(sums.const_data_ptr<float>());        // likewise
    args.scale = scale.const_data_ptr<float>();
    args.z_loss = static_cast<float>(z_loss);
    cuda::vocab_backward(args, cuda::stream_of(exp));
    cuda::check_launch("vocab_softmax_backward_");
    return;
  }
  with_element_of(exp, [&]<typename T>(T) {
    cpu::VocabBackward<T> args;
    args.exp = write<T>(exp);
    args.sum_exp = read<float>(sums);
    args.target_logit = args.sum_exp + targets.size(0);
    args.row_max = read<float>(row_max);
    args.targets = targets.const_data_ptr<int64_t>();
    args.scale = *read<float>(scale);
    args.z_loss = static_cast<float>(z_loss);
    args.vocab_begin = vocab_begin;
    args.vocab = vocab;
    cpu::parallel_rows(exp.size(0), cpu::grain_of(vocab), [&](int64_t begin, int64_t end) {
      cpu::vocab_backward_rows(args, begin, end);
    });
  });
}

VocabStatistics vocab_softmax_gradient_(at::Tensor& logits, const at::Tensor& targets,
                                        int64_t vocab_begin, const at::Tensor& scale,
                                        double z_loss) {
  check_rows(logits, targets, "vocab_softmax_gradient_");
  expect(scale.numel() == 1, "vocab_softmax_gradient_", "have a scalar scale", scale.sizes());
  if (takes_cuda_kernels(logits)) {
    cuda::Vocab args = kernel_args(logits, targets, vocab_begin);
    if (cuda::takes_vocab_both(args)) {
      const VocabStatistics result = statistics_of(logits);
      args.row_max = result.row_max.data_ptr<float>();
      args.sums = result.sums.data_ptr<float>();
      args.scale = scale.const_data_ptr<float>();
      args.z_loss = static_cast<float>(z_loss);
      cuda::vocab_both(args, cuda::stream_of(logits));
      cuda::check_launch("vocab_softmax_gradient_");
      return result;
    }
  }
  VocabStatistics result = vocab_statistics_(logits, targets, vocab_begin);
  vocab_softmax_backward_(logits, result.sums, result.row_max, targets, vocab_begin, scale, z_loss);
  return result;
}

}  // namespace tptrain::kernels
