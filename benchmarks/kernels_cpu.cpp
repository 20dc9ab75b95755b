// bench_kernels_cpu: each fused CPU operation beside the plain ATen composition of it, fp32, one
// thread; then bf16, dropout and the optimizer's other types by themselves. Shape: hidden 256, ffn
// 688, heads 8, kv 4, head_dim 32, vocab 512, S 256, B 8 (a Llama of 4 layers; one micro-batch of
// 2048 tokens). Columns: best ms of both, their ratio, and what the fused one reaches: GB/s of the
// bytes it must move, or GFLOP/s of its products.
// --default-malloc: without retain_freed_memory (kernels/cpu/allocation.h).
// The last lines put a step together from these numbers: elementwise work against GEMMs, four
// layers, forward and backward.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

#include "kernels/cpu/allocation.h"
#include "kernels/kernels.h"
#include "optim/update_rule.h"

namespace {

using namespace tptrain::kernels;

constexpr int64_t kHidden = 256, kFfn = 688, kHeads = 8, kKvHeads = 4, kHeadDim = 32, kVocab = 512,
                  kPositions = 256, kBatch = 8;
constexpr int64_t kTokens = kPositions * kBatch, kLayers = 4;
constexpr double kEps = 1e-5;

// Processor time of the one thread, the fastest of many: what other processes take does not count.
double best_ms(const std::function<void()>& operation) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
  };
  operation();
  double best = std::numeric_limits<double>::infinity();
  const double begin = now();
  for (int repeat = 0; repeat < 7 || (repeat < 300 && now() - begin < 300.0); ++repeat) {
    const double start = now();
    operation();
    best = std::min(best, now() - start);
  }
  return best;
}

struct Work {
  double floats_moved = 0.0;
  double flops = 0.0;
};

double report(const char* name, const Work& work, const std::function<void()>& fused,
              const std::function<void()>& plain) {
  const double ms = best_ms(fused);
  const double plain_ms = plain ? best_ms(plain) : std::nan("");
  const double rate =
      work.flops > 0.0 ? work.flops / ms * 1e-6 : work.floats_moved * 4.0 / ms * 1e-6;
  std::printf("%-28s %9.3f %9.3f %7.2f %9.1f %s\n", name, ms, plain_ms, plain_ms / ms, rate,
              work.flops > 0.0 ? "GFLOP/s" : "GB/s");
  std::fflush(stdout);
  return ms;
}

at::Tensor rotate_half(const at::Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
}

struct Attention {
  at::Tensor q, k, v;  // [B, heads, S, D], keys and values repeated
};
Attention split_and_repeat(const at::Tensor& qkv) {
  const at::Tensor heads =
      qkv.view({kPositions, kBatch, kHeads + 2 * kKvHeads, kHeadDim}).permute({1, 2, 0, 3});
  return {heads.narrow(1, 0, kHeads).contiguous(),
          heads.narrow(1, kHeads, kKvHeads).repeat_interleave(kHeads / kKvHeads, 1),
          heads.narrow(1, kHeads + kKvHeads, kKvHeads).repeat_interleave(kHeads / kKvHeads, 1)};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "--default-malloc")
    cpu::retain_freed_memory();  // as a training run does
  at::set_num_threads(1);
  at::NoGradGuard no_grad;
  const double tokens = kTokens;
  const at::Tensor x = at::randn({kPositions, kBatch, kHidden}), y = at::randn_like(x),
                   grad = at::randn_like(x), weight = at::randn({kHidden});
  at::Tensor weight_grad = at::zeros({kHidden});
  std::printf("%-28s %9s %9s %7s %9s\n", "operation", "ms", "plain ms", "ratio", "rate");

  const RmsNormResult normed = rms_norm(x, weight, kEps);
  const double norm = report(
      "add_rms_norm", {.floats_moved = 4 * tokens * kHidden},
      [&] { add_rms_norm(x, y, weight, kEps); },
      [&] {
        const at::Tensor sum = x + y;
        sum* at::rsqrt((sum * sum).mean(-1, true) + kEps) * weight;
      });
  const double norm_backward = report(
      "add_rms_norm_backward", {.floats_moved = 4 * tokens * kHidden},
      [&] { add_rms_norm_backward(grad, y, x, weight, normed.inverse_rms, weight_grad); },
      [&] {
        const at::Tensor inverse = normed.inverse_rms.view({kPositions, kBatch, 1});
        const at::Tensor scaled = x * inverse;
        weight_grad.add_((y * scaled).sum(at::IntArrayRef({0, 1})));
        const at::Tensor weighted = y * weight;
        grad + inverse*(weighted - scaled * (weighted * scaled).mean(-1, true));
      });

  const at::Tensor gate_up = at::randn({kPositions, kBatch, 2 * kFfn}),
                   grad_ffn = at::randn({kPositions, kBatch, kFfn});
  const double activation = report(
      "swiglu", {.floats_moved = 3 * tokens * kFfn}, [&] { swiglu(gate_up); },
      [&] { at::silu(gate_up.narrow(-1, 0, kFfn)) * gate_up.narrow(-1, kFfn, kFfn); });
  const double activation_backward = report(
      "swiglu_backward", {.floats_moved = 5 * tokens * kFfn},
      [&] { swiglu_backward(grad_ffn, gate_up); },
      [&] {
        const at::Tensor gate = gate_up.narrow(-1, 0, kFfn), up = gate_up.narrow(-1, kFfn, kFfn);
        at::cat({at::silu_backward(grad_ffn * up, gate), grad_ffn * at::silu(gate)}, -1);
      });

  at::Tensor qkv = at::randn({kPositions, kBatch, (kHeads + 2 * kKvHeads) * kHeadDim});
  const RotaryTable table = rotary_table(0, kPositions, kHeadDim, 10000.0, at::kCPU);
  const at::Tensor cos = at::cat({table.cos, table.cos}, 1).view({kPositions, 1, 1, kHeadDim});
  const at::Tensor sin = at::cat({table.sin, table.sin}, 1).view({kPositions, 1, 1, kHeadDim});
  const double rotation = report(
      "rotate_", {.floats_moved = 2 * tokens * (kHeads + kKvHeads) * kHeadDim},
      [&] { rotate_(qkv, table, kHeads + kKvHeads, kHeadDim, Rotation::forward); },
      [&] {
        const at::Tensor heads =
            qkv.view({kPositions, kBatch, -1, kHeadDim}).narrow(2, 0, kHeads + kKvHeads);
        heads* cos + rotate_half(heads) * sin;
      });

  const AttentionShape shape{.heads = kHeads, .kv_heads = kKvHeads, .head_dim = kHeadDim};
  const AttentionResult attended = causal_attention(qkv, shape);
  const at::Tensor grad_context = at::randn_like(attended.context);
  // The causal half of two products forward, five backward.
  const double product_flops = 2.0 * kBatch * kHeads * kPositions * kPositions / 2 * kHeadDim;
  const at::Tensor future = at::ones({kPositions, kPositions}, at::kBool).triu(1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(kHeadDim));
  const auto probabilities = [&](const Attention& a) {
    return at::softmax(
        (at::matmul(a.q, a.k.transpose(2, 3)) * scale).masked_fill_(future, -INFINITY), -1);
  };
  const double attention = report(
      "causal_attention", {.flops = 2 * product_flops}, [&] { causal_attention(qkv, shape); },
      [&] {
        const Attention a = split_and_repeat(qkv);
        at::matmul(probabilities(a), a.v).permute({2, 0, 1, 3}).contiguous();
      });
  const Attention repeated = split_and_repeat(qkv);
  const at::Tensor saved = probabilities(repeated);  // a plain composition keeps them
  const double attention_backward = report(
      "causal_attention_backward", {.flops = 5 * product_flops},
      [&] { causal_attention_backward(grad_context, qkv, attended, shape); },
      [&] {
        const at::Tensor dy = grad_context.view({kPositions, kBatch, kHeads, kHeadDim})
                                  .permute({1, 2, 0, 3})
                                  .contiguous();
        const at::Tensor dp = at::matmul(dy, repeated.v.transpose(2, 3));
        const at::Tensor ds = at::_softmax_backward_data(dp, saved, -1, at::kFloat).mul_(scale);
        const at::Tensor dq = at::matmul(ds, repeated.k),
                         dk = at::matmul(ds.transpose(2, 3), repeated.q),
                         dv = at::matmul(saved.transpose(2, 3), dy);
        at::cat(
            {dq, dk.unflatten(1, {kKvHeads, -1}).sum(2), dv.unflatten(1, {kKvHeads, -1}).sum(2)}, 1)
            .permute({2, 0, 1, 3})
            .contiguous();
      });

  const at::Tensor original = at::randn({kTokens, kVocab});
  at::Tensor logits = original.clone();
  const at::Tensor targets = at::randint(0, kVocab, {kTokens}, at::kLong), one = at::ones({});
  const double copy = best_ms([&] { logits.copy_(original); });
  const double loss_with_copy = report(
      "cross entropy, all (+ copy)", {.floats_moved = 7 * tokens * kVocab},
      [&] {
        logits.copy_(original);
        const at::Tensor row_max = vocab_row_max(logits);
        const at::Tensor sums = vocab_exp_(logits, row_max, targets, 0);
        cross_entropy_sums(sums, row_max, targets);
        vocab_softmax_backward_(logits, sums, row_max, targets, 0, one, /*z_loss=*/0.0);
      },
      [&] {
        logits.copy_(original);
        const at::Tensor log_probabilities = at::log_softmax(logits, -1);
        at::nll_loss(log_probabilities, targets, {}, at::Reduction::Sum);
        at::Tensor gradient = log_probabilities.exp();
        gradient.sub_(at::one_hot(targets, kVocab));
      });
  const double loss = loss_with_copy - copy;

  const auto gemm = [&](const char* name, int64_t out, int64_t in) {
    const at::Tensor input = at::randn({kTokens, in}), w = at::randn({out, in}),
                     dy = at::randn({kTokens, out});
    at::Tensor dw = at::zeros({out, in});
    return report(
        name, {.flops = 6.0 * tokens * static_cast<double>(out * in)},
        [&] {
          at::mm(input, w.t());
          at::mm(dy, w);
          accumulate_weight_gradient(dw, dy, input);
        },
        [&] {
          at::mm(input, w.t());
          at::mm(dy, w);
          dw.add_(at::mm(dy.t(), input));
        });
  };
  const double gemms = gemm("gemm qkv, fwd + bwd", (kHeads + 2 * kKvHeads) * kHeadDim, kHidden) +
                       gemm("gemm attention out", kHidden, kHeads * kHeadDim) +
                       gemm("gemm gate_up", 2 * kFfn, kHidden) + gemm("gemm down", kHidden, kFfn);
  const double head = gemm("gemm lm_head", kVocab, kHidden);

  const int64_t parameters =
      kLayers * (2 * kHidden * kHidden + 2 * kKvHeads * kHeadDim * kHidden + 3 * kHidden * kFfn) +
      2 * kVocab * kHidden;
  std::vector<tptrain::optim::UpdateRange> ranges = {
      {.master = at::randn({parameters}),
       .slots = {at::zeros({parameters}), at::zeros({parameters})},
       .gradient = at::randn({parameters})}};
  const std::vector<at::Tensor> master = {at::randn({parameters})}, gradient = {ranges[0].gradient},
                                m = {at::zeros({parameters})}, v = {at::zeros({parameters})},
                                none = {}, steps = {at::ones({})};
  const tptrain::optim::UpdateStep step{.learning_rate = at::full({}, 1e-4, at::kDouble),
                                        .gradient_scale = one,
                                        .finite = at::ones({}, at::kBool),
                                        .updates = at::zeros({})};
  const auto adamw =
      tptrain::optim::update_rule(tptrain::config::OptimizerType::adamw).update_of(ranges, {});
  const double optimizer = report(
      "adamw", {.floats_moved = 7.0 * static_cast<double>(parameters)}, [&] { adamw->run(step); },
      [&] {
        at::_fused_adamw_(master, gradient, m, v, none, steps, 1e-4, 0.9, 0.95, 0.0, 1e-8, false,
                          false);
      });

  // What bf16 and dropout cost beside the fp32 lines above; no plain composition of them.
  std::printf("\n");
  const auto narrow = [](const at::Tensor& tensor) { return tensor.to(at::kBFloat16); };
  const at::Tensor bf16_x = narrow(x), bf16_y = narrow(y), bf16_weight = narrow(weight),
                   bf16_gate_up = narrow(gate_up), bf16_grad_ffn = narrow(grad_ffn),
                   bf16_grad_context = narrow(grad_context);
  at::Tensor bf16_qkv = narrow(qkv), dropped = x.clone();
  // Rates count floats of four bytes: halves for bf16.
  report("bf16 add_rms_norm", {.floats_moved = 2 * tokens * kHidden},
         [&] { add_rms_norm(bf16_x, bf16_y, bf16_weight, kEps); }, {});
  report("bf16 add_rms_norm_backward", {.floats_moved = 2 * tokens * kHidden},
         [&] {
           add_rms_norm_backward(bf16_y, bf16_y, bf16_x, bf16_weight, normed.inverse_rms,
                                 weight_grad);
         },
         {});
  report("bf16 swiglu", {.floats_moved = 1.5 * tokens * kFfn}, [&] { swiglu(bf16_gate_up); }, {});
  report("bf16 swiglu_backward", {.floats_moved = 2.5 * tokens * kFfn},
         [&] { swiglu_backward(bf16_grad_ffn, bf16_gate_up); }, {});
  report("bf16 rotate_", {.floats_moved = tokens * (kHeads + kKvHeads) * kHeadDim},
         [&] { rotate_(bf16_qkv, table, kHeads + kKvHeads, kHeadDim, Rotation::forward); }, {});
  report("bf16 causal_attention", {.flops = 2 * product_flops},
         [&] { causal_attention(bf16_qkv, shape); }, {});
  const AttentionResult bf16_attended = causal_attention(bf16_qkv, shape);
  report("bf16 attention backward", {.flops = 5 * product_flops},
         [&] { causal_attention_backward(bf16_grad_context, bf16_qkv, bf16_attended, shape); }, {});
  const at::Tensor dy = narrow(at::randn({kTokens, 2 * kFfn})),
                   w = narrow(at::randn({2 * kFfn, kHidden})),
                   rows = bf16_x.view({kTokens, kHidden});
  at::Tensor dw = at::zeros({2 * kFfn, kHidden});
  const double gemm_flops = 2.0 * tokens * 2 * kFfn * kHidden;
  report("bf16 gemm gate_up, fwd", {.flops = gemm_flops}, [&] { at::mm(rows, w.t()); }, {});
  report("bf16 gemm gate_up, dx", {.flops = gemm_flops}, [&] { at::mm(dy, w); }, {});
  report("bf16 gemm gate_up, dw", {.flops = gemm_flops},
         [&] { accumulate_weight_gradient(dw, dy, rows); }, {});
  const Dropout dropout{.probability = 0.1, .key = {1, 2}};
  report("dropout_", {.floats_moved = 2 * tokens * kHidden}, [&] { dropout_(dropped, dropout, 0); },
         {});
  report("attention with dropout", {.flops = 2 * product_flops},
         [&] { causal_attention_dropout(qkv, shape, dropout); }, {});
  report("attention dropout backward", {.flops = 5 * product_flops},
         [&] { causal_attention_dropout_backward(grad_context, qkv, shape, dropout); }, {});
  const auto optimizer_line = [&](const char* name, at::ScalarType master_type,
                                  at::ScalarType moments, double floats) {
    std::vector<tptrain::optim::UpdateRange> narrow_ranges = {
        {.master = at::randn({parameters}, at::kFloat).to(master_type),
         .slots = {at::zeros({parameters}, moments), at::zeros({parameters}, moments)},
         .gradient = ranges[0].gradient}};
    if (master_type == at::kBFloat16) {
      narrow_ranges[0].rounding = {tptrain::sharding::whole_tensor("w", {parameters}), 0};
    } else {
      narrow_ranges[0].weights = at::zeros({parameters}, at::kBFloat16);
    }
    const auto narrow_adamw = tptrain::optim::update_rule(tptrain::config::OptimizerType::adamw)
                                  .update_of(narrow_ranges, {});
    report(name, {.floats_moved = floats * static_cast<double>(parameters)},
           [&] { narrow_adamw->run(step); }, {});
  };
  optimizer_line("adamw, bf16 weights", at::kFloat, at::kFloat, 7.5);
  optimizer_line("adamw, bf16 moments too", at::kFloat, at::kBFloat16, 5.5);
  optimizer_line("adamw, bf16 master", at::kBFloat16, at::kBFloat16, 4.0);

  const double elementwise =
      kLayers * (2 * (norm + norm_backward) + activation + activation_backward + 2 * rotation) +
      loss;
  std::printf(
      "\nstep of %ld tokens: gemm %.1f ms, attention %.1f ms, elementwise %.1f ms (%.1f %% of "
      "gemm), adamw %.2f ms\n",
      static_cast<long>(kTokens), kLayers * gemms + head,
      kLayers * (attention + attention_backward), elementwise,
      100.0 * elementwise / (kLayers * gemms + head), optimizer);
  return 0;
}
