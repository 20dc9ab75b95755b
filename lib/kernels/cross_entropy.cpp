// Vocab-parallel cross entropy in steps, without full logits and without one-hot tensors: dispatch
// to the CPU loops or the ATen composition.
#include <cmath>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

constexpr int64_t kIgnored = -100;

void check_rows(const at::Tensor& matrix, const at::Tensor& targets, const char* function) {
  expect(matrix.dim() == 2 && matrix.size(1) > 0, function, "be [T, V_local]", matrix.sizes());
  expect(
      targets.dim() == 1 && targets.size(0) == matrix.size(0) && targets.scalar_type() == at::kLong,
      function, "have int64 targets [T]", targets.sizes());
  expect_contiguous(matrix, function);
  expect_contiguous(targets, function);
}

void check_sums(const at::Tensor& sums, const at::Tensor& targets, const char* function) {
  expect(sums.dim() == 2 && sums.size(0) == 2 && sums.size(1) == targets.size(0), function,
         "have sums [2, T]", sums.sizes());
  expect_contiguous(sums, function);
  expect_contiguous(targets, function);
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
  expect(logits.dim() == 2 && logits.size(1) > 0, "vocab_row_max", "be [T, V_local]",
         logits.sizes());
  expect_contiguous(logits, "vocab_row_max");
  if (!takes_cpu_loops(logits)) return at::amax(logits, {1}).to(compute_type(logits));
  at::Tensor row_max = at::empty({logits.size(0)}, logits.options());
  const float* in = logits.const_data_ptr<float>();
  float* out = row_max.data_ptr<float>();
  const int64_t vocab = logits.size(1);
  cpu::parallel_rows(logits.size(0), cpu::grain_of(vocab), [&](int64_t begin, int64_t end) {
    cpu::row_max_rows(in, out, vocab, begin, end);
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
    cpu::VocabExp args;
    args.logits = logits.data_ptr<float>();
    args.row_max = row_max.const_data_ptr<float>();
    args.targets = targets.const_data_ptr<int64_t>();
    args.sum_exp = sums.data_ptr<float>();
    args.target_logit = args.sum_exp + tokens;
    args.vocab_begin = vocab_begin;
    args.vocab = vocab;
    cpu::parallel_rows(tokens, cpu::grain_of(vocab),
                       [&](int64_t begin, int64_t end) { cpu::vocab_exp_rows(args, begin, end); });
    return sums;
  }
  const LocalTargets local = local_targets(targets, vocab_begin, vocab);
  const at::Tensor shifted_target =
      at::gather(logits, 1, local.column).squeeze(1).to(sums.scalar_type()) - row_max;
  sums.select(0, 1).copy_(at::where(local.here, shifted_target, at::zeros_like(shifted_target)));
  logits.sub_(row_max.unsqueeze(1)).exp_();
  sums.select(0, 0).copy_(at::sum(logits, {1}, /*keepdim=*/false, sums.scalar_type()));
  return sums;
}

at::Tensor cross_entropy_sum(const at::Tensor& sums, const at::Tensor& targets) {
  check_sums(sums, targets, "cross_entropy_sum");
  if (takes_cpu_loops(sums)) {
    const int64_t tokens = targets.size(0);
    const float* sum_exp = sums.const_data_ptr<float>();
    const float* target_logit = sum_exp + tokens;
    const int64_t* target = targets.const_data_ptr<int64_t>();
    double total = 0.0;
    for (int64_t t = 0; t < tokens; ++t) {
      if (target[t] == kIgnored) continue;
      total += std::log(static_cast<double>(sum_exp[t])) - static_cast<double>(target_logit[t]);
    }
    return at::scalar_tensor(total, sums.options());
  }
  const at::Tensor losses = at::log(sums.select(0, 0)) - sums.select(0, 1);
  return at::where(targets.ne(kIgnored), losses, at::zeros_like(losses)).sum();
}

void vocab_softmax_backward_(at::Tensor& exp, const at::Tensor& sums, const at::Tensor& targets,
                             int64_t vocab_begin, const at::Tensor& scale) {
  check_rows(exp, targets, "vocab_softmax_backward_");
  check_sums(sums, targets, "vocab_softmax_backward_");
  expect(scale.numel() == 1, "vocab_softmax_backward_", "have a scalar scale", scale.sizes());
  const int64_t vocab = exp.size(1);
  if (takes_cpu_loops(exp)) {
    cpu::VocabBackward args;
    args.exp = exp.data_ptr<float>();
    args.sum_exp = sums.const_data_ptr<float>();
    args.targets = targets.const_data_ptr<int64_t>();
    args.scale = *scale.const_data_ptr<float>();
    args.vocab_begin = vocab_begin;
    args.vocab = vocab;
    cpu::parallel_rows(exp.size(0), cpu::grain_of(vocab), [&](int64_t begin, int64_t end) {
      cpu::vocab_backward_rows(args, begin, end);
    });
    return;
  }
  const LocalTargets local = local_targets(targets, vocab_begin, vocab);
  const at::Tensor counted = targets.ne(kIgnored).unsqueeze(1);  // [T, 1]
  const at::Tensor factor =
      scale.reshape({}).to(sums.scalar_type()) / sums.select(0, 0).unsqueeze(1);  // [T, 1]
  exp.mul_(factor);
  const at::Tensor target_share = at::where(local.here, -scale.reshape({}).to(sums.scalar_type()),
                                            at::zeros({}, sums.options()));
  exp.scatter_add_(1, local.column, target_share.unsqueeze(1).to(exp.scalar_type()));
  exp.masked_fill_(counted.logical_not(), 0.0);
}

}  // namespace tptrain::kernels
