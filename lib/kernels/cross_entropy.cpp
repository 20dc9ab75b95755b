// Vocab-parallel cross entropy in steps, without full logits and without one-hot tensors: dispatch
// to the CPU loops, the CUDA kernels or the ATen composition.
#include <algorithm>
#include <cmath>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

constexpr int64_t kIgnored = -100;
// The composition widens bf16 logits so many at a time: 64 MiB of fp32.
constexpr int64_t kWideElements = int64_t{1} << 24;

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

/// Where the target lies in this slice, and its column there (0 where not).
struct LocalTargets {
  at::Tensor here;    // [T] bool
  at::Tensor column;  // [T, 1] int64
};
LocalTargets local_targets(const at::Tensor& targets, int64_t vocab_begin, int64_t vocab) {
  const at::Tensor column = targets - vocab_begin;
  // An ignored target is never here, whatever the slice: with a slice that begins at 0 its column
  // is negative already.
  const at::Tensor here =
      column.ge(0).logical_and(column.lt(vocab)).logical_and(targets.ne(kIgnored));
  return {here, at::where(here, column, at::zeros_like(column)).unsqueeze(1)};
}

}  // namespace

at::Tensor vocab_row_max(const at::Tensor& logits) {
  check_logits(logits, "vocab_row_max");
  if (!takes_cpu_loops(logits)) return at::amax(logits, {1}).to(compute_type(logits));
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
  at::Tensor sums = at::empty({2, tokens}, logits.options().dtype(compute_type(logits)));
  if (takes_cpu_loops(logits)) {
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
      cpu::parallel_rows(tokens, cpu::grain_of(vocab), [&](int64_t begin, int64_t end) {
        cpu::vocab_exp_rows(args, begin, end);
      });
    });
    return sums;
  }
  if (takes_cuda_kernels(logits)) {
    VocabStatistics statistics = vocab_statistics_(logits, targets, vocab_begin);
    vocab_rescale_(statistics.sums, logits, statistics.row_max, row_max, targets, vocab_begin);
    return statistics.sums;
  }
  const LocalTargets local = local_targets(targets, vocab_begin, vocab);
  const at::Tensor shifted_target =
      at::gather(logits, 1, local.column).squeeze(1).to(sums.scalar_type()) - row_max;
  sums.select(0, 1).copy_(at::where(local.here, shifted_target, at::zeros_like(shifted_target)));
  at::Tensor sum_exp = sums.select(0, 0);
  if (logits.scalar_type() == sums.scalar_type()) {
    logits.sub_(row_max.unsqueeze(1)).exp_();
    sum_exp.copy_(at::sum(logits, {1}));
    return sums;
  }
  // Exponentials and their sum in fp32, rounded where they are stored: a difference rounded to bf16
  // before the exponential is wrong by percents.
  const int64_t rows = std::max<int64_t>(1, kWideElements / vocab);
  for (int64_t first = 0; first < tokens; first += rows) {
    const int64_t count = std::min(rows, tokens - first);
    const at::Tensor chunk = logits.narrow(0, first, count);
    const at::Tensor wide = chunk.to(sums.scalar_type());
    wide.sub_(row_max.narrow(0, first, count).unsqueeze(1)).exp_();
    sum_exp.narrow(0, first, count).copy_(at::sum(wide, {1}));
    chunk.copy_(wide);
  }
  return sums;
}

VocabStatistics vocab_statistics_(at::Tensor& logits, const at::Tensor& targets,
                                  int64_t vocab_begin) {
  check_rows(logits, targets, "vocab_statistics_");
  if (!takes_cuda_kernels(logits)) {
    const at::Tensor row_max = vocab_row_max(logits);
    return {row_max, vocab_exp_(logits, row_max, targets, vocab_begin)};
  }
  const at::TensorOptions options = logits.options().dtype(at::kFloat);
  VocabStatistics result{at::empty({logits.size(0)}, options),
                         at::empty({2, logits.size(0)}, options)};
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
  if (takes_cpu_loops(sums)) {
    const int64_t tokens = targets.size(0);
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
  if (takes_cuda_kernels(sums)) {
    const int64_t tokens = targets.size(0);
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
  const at::Tensor log_sum = at::log(sums.select(0, 0));            // [T]
  const at::Tensor terms = at::stack({log_sum - sums.select(0, 1),  // [2, T]
                                      at::square(row_max.to(sums.scalar_type()) + log_sum)});
  return at::where(targets.ne(kIgnored), terms, at::zeros({}, sums.options())).sum({1});
}

void vocab_softmax_backward_(at::Tensor& exp, const at::Tensor& sums, const at::Tensor& row_max,
                             const at::Tensor& targets, int64_t vocab_begin,
                             const at::Tensor& scale, double z_loss) {
  check_rows(exp, targets, "vocab_softmax_backward_");
  check_sums(sums, row_max, targets, "vocab_softmax_backward_");
  expect(scale.numel() == 1, "vocab_softmax_backward_", "have a scalar scale", scale.sizes());
  const int64_t vocab = exp.size(1);
  if (takes_cpu_loops(exp)) {
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
    return;
  }
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
  const LocalTargets local = local_targets(targets, vocab_begin, vocab);
  const at::Tensor wide_scale = scale.reshape({}).to(sums.scalar_type());
  at::Tensor factor = wide_scale / sums.select(0, 0);  // [T]
  if (z_loss != 0.0) {
    const at::Tensor logsumexp = row_max.to(sums.scalar_type()) + at::log(sums.select(0, 0));
    factor = factor * (logsumexp * (2.0 * z_loss) + 1.0);
  }
  exp.mul_(factor.unsqueeze(1));
  if (exp.scalar_type() == sums.scalar_type()) {
    const at::Tensor target_share =
        at::where(local.here, -wide_scale, at::zeros({}, sums.options()));
    exp.scatter_add_(1, local.column, target_share.unsqueeze(1));
  } else {
    // As in the loops: of a well predicted token both terms are near `scale`, and their difference
    // must not be taken between rounded numbers.
    const at::Tensor target_gradient = at::exp(sums.select(0, 1)) * factor - wide_scale;
    const at::Tensor there = at::gather(exp, 1, local.column).squeeze(1);
    exp.scatter_(1, local.column,
                 at::where(local.here, target_gradient.to(exp.scalar_type()), there).unsqueeze(1));
  }
  exp.masked_fill_(targets.eq(kIgnored).unsqueeze(1), 0.0);
}

}  // namespace tptrain::kernels
