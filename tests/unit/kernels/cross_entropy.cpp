// Vocab-parallel cross entropy against at::cross_entropy_loss with autograd in fp64: whole, and cut
// into slices whose sums are added here as the all-reduces of tensor parallelism would. And the
// weight gradient's GEMM.
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

struct Sliced {
  at::Tensor loss;         // scalar
  at::Tensor squares;      // scalar: the z-loss sum
  at::Tensor grad_logits;  // [T, V]
};

/// The four steps over `cuts` slices of the vocabulary, with the reductions between them done by
/// hand.
Sliced run(const at::Tensor& logits, const at::Tensor& targets, const std::vector<int64_t>& cuts,
           double scale, double z_loss = 0.0) {
  std::vector<at::Tensor> slices;
  std::vector<at::Tensor> maxima;
  int64_t begin = 0;
  for (const int64_t size : cuts) {
    slices.push_back(logits.narrow(1, begin, size).contiguous());
    if (cuts.size() == 1)
      slices.back() = slices.back().clone();  // contiguous() of the whole is the caller's tensor
    maxima.push_back(vocab_row_max(slices.back()));
    begin += size;
  }
  const at::Tensor row_max = at::stack(maxima).amax({0});
  at::Tensor sums;
  begin = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const at::Tensor part = vocab_exp_(slices[i], row_max, targets, begin);
    sums = i == 0 ? part : sums + part;
    begin += cuts[i];
  }
  const at::Tensor losses = cross_entropy_sums(sums, row_max, targets);
  REQUIRE(losses.sizes() == at::IntArrayRef({2}));
  CHECK(losses.scalar_type() == sums.scalar_type());
  begin = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    vocab_softmax_backward_(slices[i], sums, row_max, targets, begin,
                            at::scalar_tensor(scale, sums.options()), z_loss);
    begin += cuts[i];
  }
  return {losses[0], losses[1], at::cat(slices, 1)};
}

at::Tensor random_targets(int64_t tokens, int64_t vocab, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, vocab, {tokens}, generator, at::kLong);
}

}  // namespace

TEST_CASE("cross entropy and its gradient match autograd, whole and sliced", "[kernels]") {
  at::set_num_threads(1);
  struct Case {
    int64_t tokens, vocab;
    std::vector<int64_t> cuts;
  };
  const std::vector<Case> cases = {{1, 7, {7}},
                                   {5, 7, {4, 3}},
                                   {33, 172, {172}},
                                   {33, 172, {43, 43, 43, 43}},
                                   {9, 5000, {5000}},
                                   {9, 5000, {1, 4999}},
                                   {10000, 16, {16}},
                                   {3, 50257, {50257}},
                                   {3, 50257, {25128, 25129}}};
  for (const Case& c : cases) {
    for (const bool some_ignored : {false, true}) {
      for (const Precision precision : fused_precisions()) {
        CAPTURE(c.tokens, c.vocab, c.cuts.size(), some_ignored, precision.type);
        const at::Tensor logits = leaf(normal({c.tokens, c.vocab}, 20, 3.0));
        at::Tensor targets = random_targets(c.tokens, c.vocab, 21);
        if (some_ignored) targets.slice(0, 0, c.tokens, 3).fill_(-100);
        const double scale = 0.125;
        const at::Tensor expected =
            at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, -100);
        (expected * scale).backward();

        const Sliced received =
            run(on_device(logits.detach(), precision.type), targets.to(device()), c.cuts, scale);
        CHECK_CLOSE(received.loss, expected, precision.tolerance);
        CHECK_CLOSE(received.grad_logits, logits.grad(), precision.tolerance);
      }
    }
  }
}

TEST_CASE("z-loss and its gradient match autograd, whole and sliced", "[kernels]") {
  at::set_num_threads(1);
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{172}, {43, 43, 86}}) {
    for (const double z_loss : {0.0, 1e-2, 0.5}) {
      for (const Precision precision : fused_precisions()) {
        CAPTURE(cuts.size(), z_loss, precision.type);
        const at::Tensor logits = leaf(normal({33, 172}, 31, 3.0));
        at::Tensor targets = random_targets(33, 172, 32);
        targets.slice(0, 0, 33, 4).fill_(-100);
        const double scale = 0.125;
        const at::Tensor counted = targets.ne(-100);
        const at::Tensor squares = (at::logsumexp(logits, {1}).square() * counted).sum();
        const at::Tensor loss =
            at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, -100);
        ((loss + z_loss * squares) * scale).backward();

        const Sliced received = run(on_device(logits.detach(), precision.type),
                                    targets.to(device()), cuts, scale, z_loss);
        CHECK_CLOSE(received.loss, loss, precision.tolerance);
        CHECK_CLOSE(received.squares, squares, precision.tolerance);
        CHECK_CLOSE(received.grad_logits, logits.grad(), precision.tolerance);
      }
    }
  }
}

TEST_CASE("in bf16 the loss is exact to fp32 and a well predicted token keeps its gradient",
          "[kernels]") {
  at::set_num_threads(1);
  // One logit far above the others: p = 1 - 1e-3, and bf16 has no numbers between 1 - 2^-8 and 1.
  const at::Tensor logits = leaf(normal({9, 64}, 33, 0.5));
  const at::Tensor targets = random_targets(9, 64, 34);
  const at::Tensor raised =
      (logits.detach() + 11.0 * at::one_hot(targets, 64)).to(at::kBFloat16).to(at::kDouble);
  const at::Tensor x = leaf(raised);
  const at::Tensor expected = at::cross_entropy_loss(x, targets, {}, at::Reduction::Sum, -100);
  expected.backward();
  const Sliced received =
      run(on_device(raised, at::kBFloat16), targets.to(device()), {32, 32}, 1.0);
  CHECK_CLOSE(received.loss, expected, 1e-4);  // fp32's log of a sum near 1 + 1e-3
  const at::Tensor at_target =
      received.grad_logits.cpu().to(at::kDouble).gather(1, targets.unsqueeze(1));
  CHECK(elementwise_error(at_target, x.grad().gather(1, targets.unsqueeze(1))) <= 5e-3);
}

TEST_CASE("all targets ignored: no loss and a gradient of exactly zero", "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor targets = at::full({6}, -100, at::kLong).to(device());
  for (const Precision precision : fused_precisions()) {
    const Sliced received =
        run(on_device(normal({6, 40}, 22), precision.type), targets, {20, 20}, 1.0);
    CHECK(received.loss.item<double>() == 0.0);
    CHECK(received.squares.item<double>() == 0.0);
    CHECK(received.grad_logits.eq(0.0).all().item<bool>());
  }
}

TEST_CASE("a target outside the slice counts in the slice that holds it and nowhere else",
          "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor logits = normal({3, 8}, 23).to(device(), at::kFloat);
  const at::Tensor targets =
      at::tensor({7, 8, 16}, at::kLong).to(device());  // slice [8, 16): before, first, after
  at::Tensor exp = logits.clone();
  const at::Tensor row_max = vocab_row_max(exp);
  const at::Tensor sums = vocab_exp_(exp, row_max, targets, 8);
  CHECK(sums[1][0].item<float>() == 0.0f);
  CHECK(sums[1][1].item<float>() == (logits[1][0] - row_max[1]).item<float>());
  CHECK(sums[1][2].item<float>() == 0.0f);
  const at::Tensor before = (logits - row_max.unsqueeze(1)).exp();
  vocab_softmax_backward_(exp, sums, row_max, targets, 8, at::ones({}, exp.options()), 0.0);
  CHECK_CLOSE(exp[0], before[0] / sums[0][0],
              1e-6);  // softmax alone: the target's -1 is another slice's
  CHECK_CLOSE(exp[1].sum().reshape({1}) + 1.0, at::ones({1}), 1e-6);
  CHECK_CLOSE(exp[2], before[2] / sums[0][2], 1e-6);
}

TEST_CASE("large logits do not overflow; NaN and infinity reach the loss", "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor targets = random_targets(4, 100, 24).to(device());
  const at::Tensor large = normal({4, 100}, 25, 1e4);
  const at::Tensor expected =
      at::cross_entropy_loss(large, targets.cpu(), {}, at::Reduction::Sum, -100);
  CHECK_CLOSE(run(on_device(large, at::kFloat), targets, {100}, 1.0).loss, expected, 1e-6);
  for (const double poison :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN(),
        std::numeric_limits<double>::infinity()}) {
    for (const int64_t column : {0, 17, 99}) {
      at::Tensor logits = normal({4, 100}, 26).to(device(), at::kFloat);
      logits[2][column] = poison;
      CAPTURE(poison, column);
      CHECK(vocab_row_max(logits).cpu().isfinite().to(at::kInt).equal(
          at::tensor({1, 1, 0, 1}, at::kInt)));
      CHECK(run(logits, targets, {50, 50}, 1.0).loss.isnan().item<bool>());
      CHECK(run(logits, targets, {100}, 1.0).grad_logits[2].isnan().any().item<bool>());
    }
  }
  // Masked logits are no poison.
  at::Tensor masked = normal({4, 100}, 27).to(device(), at::kFloat);
  masked.narrow(1, 50, 50).fill_(-std::numeric_limits<double>::infinity());
  const Sliced received = run(masked, targets.remainder(50), {50, 50}, 1.0);
  CHECK(received.loss.isfinite().item<bool>());
  CHECK(received.grad_logits.narrow(1, 50, 50).eq(0.0).all().item<bool>());
}

TEST_CASE("vocab_statistics_ is both steps of one slice", "[kernels]") {
  at::set_num_threads(1);
  for (const int64_t vocab : {1, 7, 172, 4099, 50257}) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(vocab, precision.type);
      const at::Tensor logits = on_device(normal({9, vocab}, 41, 3.0), precision.type);
      const at::Tensor targets = (random_targets(9, 2 * vocab, 42)).to(device());
      at::Tensor one_pass = logits.clone(), two_passes = logits.clone();
      const VocabStatistics received = vocab_statistics_(one_pass, targets, vocab / 2);
      const at::Tensor row_max = vocab_row_max(two_passes);
      const at::Tensor sums = vocab_exp_(two_passes, row_max, targets, vocab / 2);
      CHECK(same_bits(received.row_max, row_max));
      CHECK_CLOSE(received.sums, sums, 1e-6);
      CHECK(vocab_keeps_logits(logits) == device().is_cuda());
      if (vocab_keeps_logits(logits)) CHECK(same_bits(one_pass, logits));
    }
  }
}

TEST_CASE("statistics and gradient at once have the bits of one after the other", "[kernels]") {
  at::set_num_threads(1);
  // One block or a cluster of two to eight blocks of a GPU; rows that end in no load of 16 bytes;
  // with a row of padding between rows; beyond what eight blocks hold (fp32). Many rows: each block
  // has several.
  struct Case {
    int64_t vocab, repeats;
  };
  for (const Case& c : std::vector<Case>{{1, 1},
                                         {7, 300},
                                         {172, 300},
                                         {4099, 200},
                                         {50257, 100},
                                         {128256, 50},
                                         {151936, 25},
                                         {600000, 1}}) {
    const int64_t vocab = c.vocab, tokens = 6 * (device().is_cuda() ? c.repeats : 1);
    const int64_t stride = device().is_cuda() ? (vocab + 63) / 64 * 64 : vocab;
    const at::Tensor drawn = normal({6, stride}, 45, 3.0);
    for (const Precision precision : fused_precisions()) {
      // The small scale lets exponentials of bf16 that are no normal numbers be zeros, which rows
      // of a large spread have.
      for (const double scale_value : {0.25, 1e-4}) {
        CAPTURE(vocab, precision.type, scale_value);
        at::Tensor six = on_device(drawn, precision.type).clone();
        six[3].mul_(20.0);
        six[4].narrow(0, 0, vocab).fill_(-std::numeric_limits<double>::infinity());
        six[5][vocab / 2] = std::numeric_limits<double>::quiet_NaN();
        at::Tensor whole = six.repeat({tokens / 6, 1});
        at::Tensor targets = random_targets(tokens, 2 * vocab, 46);
        targets[0] = vocab / 2;  // the first of the slice
        targets[1] = vocab / 2 + vocab - 1;
        targets.slice(0, 2, tokens, 13).fill_(-100);
        targets = targets.to(device());
        const at::Tensor scale =
            at::scalar_tensor(scale_value, on_device(at::zeros({1}), at::kFloat).options());
        at::Tensor whole_twin = whole.clone(), twin = whole_twin.narrow(1, 0, vocab),
                   ours = whole.narrow(1, 0, vocab);
        const VocabStatistics expected = vocab_statistics_(twin, targets, vocab / 2);
        vocab_softmax_backward_(twin, expected.sums, expected.row_max, targets, vocab / 2, scale,
                                0.1);
        const VocabStatistics received =
            vocab_softmax_gradient_(ours, targets, vocab / 2, scale, 0.1);
        CHECK(same_bits(received.row_max, expected.row_max));
        CHECK(same_bits(received.sums, expected.sums));
        CHECK(same_bits(whole, whole_twin));
      }
    }
  }
}

TEST_CASE("a gradient in bf16 is that of exact exponentials down to bf16's least", "[kernels]") {
  at::set_num_threads(1);
  // Logits from 0 to 110 below the largest, where e^x passes 2^-126 and 2^-133; a target none of
  // them is. Scales on either side of what lets small exponentials be zeros.
  const int64_t vocab = 4096;
  const at::Tensor logits =
      at::linspace(-110.0, 0.0, vocab, at::kDouble).unsqueeze(0).to(at::kBFloat16);
  for (const double scale_value : {1e-3, 0.5, 100.0, 1e4}) {
    CAPTURE(scale_value);
    at::Tensor received = logits.to(device()).clone();
    const at::Tensor elsewhere = at::full({1}, 1 << 30, at::kLong).to(device());
    if (device().is_cpu()) received = received.to(at::kFloat);
    const at::Tensor scale = at::full({}, scale_value, received.options().dtype(at::kFloat));
    vocab_softmax_gradient_(received, elsewhere, 0, scale, 0.0);
    const at::Tensor x = logits.to(at::kDouble);
    const at::Tensor expected = at::softmax(x, {1}) * scale_value;
    // 2^-8 of rounding to bf16, half of its least number, and what fp32's exponential lacks.
    const at::Tensor error = (received.cpu().to(at::kDouble) - expected).abs();
    CHECK((error - expected / 256 * 1.01).max().item<double>() <= 1.001 * std::ldexp(1.0, -134));
  }
}

TEST_CASE("rows of logits may lie apart on CUDA; backward leaves zeros between them", "[kernels]") {
  at::set_num_threads(1);
  for (const int64_t vocab : {1, 7, 172, 1003, 50257}) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(vocab, precision.type);
      const at::Tensor logits = leaf(normal({5, vocab}, 43, 3.0));
      at::Tensor targets = random_targets(5, vocab, 44);
      targets[3] = -100;
      const at::Tensor loss = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, -100);
      loss.backward();
      const at::Tensor wide =
          at::full({5, (vocab + 63) / 64 * 64 + 64}, std::numeric_limits<double>::quiet_NaN(),
                   at::TensorOptions(device()).dtype(precision.type));
      at::Tensor rows = wide.narrow(1, 0, vocab);
      rows.copy_(logits.detach());
      const at::Tensor local = targets.to(device());
      if (device().is_cpu()) {
        CHECK(contains(message_of([&] { vocab_statistics_(rows, local, 0); }), "be contiguous"));
        continue;
      }
      const VocabStatistics statistics = vocab_statistics_(rows, local, 0);
      CHECK_CLOSE(cross_entropy_sums(statistics.sums, statistics.row_max, local)[0], loss,
                  precision.tolerance);
      vocab_softmax_backward_(rows, statistics.sums, statistics.row_max, local, 0,
                              at::ones({}, statistics.sums.options()), 0.0);
      CHECK_CLOSE(rows, logits.grad(), precision.tolerance);
      if (vocab_keeps_logits(rows)) CHECK(wide.slice(1, vocab).eq(0).all().item<bool>());
    }
  }
}

TEST_CASE("vocab_row_max is at::amax, bit for bit", "[kernels]") {
  at::set_num_threads(1);
  for (const int64_t vocab : {1, 7, 172, 4099}) {
    const at::Tensor logits =
        normal({5, vocab}, 28).to(device(), at::kFloat) - 5.0;  // most rows all negative
    CHECK(same_bits(vocab_row_max(logits), logits.amax({1})));
  }
}

TEST_CASE("the exponential is within 2 ulp from 1 down to the denormals", "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor x = at::linspace(-110.0, 0.0, 200001, at::kFloat).unsqueeze(0);
  at::Tensor received = x.to(device()).clone();
  // With the target in another slice and a sum of 1 the gradient is the exponential itself.
  const at::Tensor elsewhere = at::full({1}, 1 << 30, at::kLong).to(device());
  const at::Tensor row_max = at::zeros({1}, received.options());
  vocab_exp_(received, row_max, elsewhere, 0);
  vocab_softmax_backward_(received, at::ones({2, 1}, received.options()), row_max, elsewhere, 0,
                          at::ones({}, received.options()), 0.0);
  const at::Tensor expected = x.to(at::kDouble).exp();
  const at::Tensor error = (received.cpu().to(at::kDouble) - expected).abs();
  CHECK((error / (expected + 1.2e-38)).max().item<double>() < 2 * 1.2e-7);
}

TEST_CASE("the weight gradient is added in fp32", "[kernels]") {
  at::set_num_threads(1);
  for (const Precision precision : precisions()) {
    CAPTURE(precision.type);
    const at::Tensor grad_output = normal({3, 11, 24}, 29);  // [S, B, out]
    const at::Tensor input = normal({3, 11, 40}, 30);
    const at::Tensor expected =
        at::matmul(grad_output.reshape({33, 24}).t(), input.reshape({33, 40})) + 1.0;
    const at::ScalarType accumulator = precision.type == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor grad = at::ones({24, 40}, at::TensorOptions(device()).dtype(accumulator));
    accumulate_weight_gradient(grad, on_device(grad_output, precision.type),
                               on_device(input, precision.type));
    // bf16 inputs lose nothing: their products are exact in fp32.
    CHECK_CLOSE(grad, expected, precision.type == at::kDouble ? 1e-12 : 2e-6);
  }
}

TEST_CASE("the weight gradient overwrites whatever was there", "[kernels]") {
  at::set_num_threads(1);
  for (const Precision precision : precisions()) {
    CAPTURE(precision.type);
    const at::Tensor grad_output = on_device(normal({33, 24}, 29), precision.type);
    const at::Tensor input = on_device(normal({33, 40}, 30), precision.type);
    const at::ScalarType accumulator = precision.type == at::kDouble ? at::kDouble : at::kFloat;
    const auto options = at::TensorOptions(device()).dtype(accumulator);
    at::Tensor added = at::zeros({24, 40}, options);
    accumulate_weight_gradient(added, grad_output, input);
    at::Tensor written = at::full({24, 40}, std::nan(""), options);
    accumulate_weight_gradient(written, grad_output, input, Accumulate::overwrite);
    // cuBLAS may choose another kernel for each.
    CHECK_CLOSE(written, added, precision.type == at::kDouble ? 1e-12 : 2e-6);
    accumulate_weight_gradient(written, grad_output, input, Accumulate::add);
    CHECK_CLOSE(written, added * 2, precision.type == at::kDouble ? 1e-12 : 2e-6);
  }
}

TEST_CASE("the weight gradient takes rows that lie apart", "[kernels]") {
  at::set_num_threads(1);
  for (const Precision precision : precisions()) {
    CAPTURE(precision.type);
    const at::Tensor grad_output = normal({33, 27}, 45);
    const at::Tensor input = normal({33, 40}, 46);
    const at::Tensor rows =
        on_device(at::cat({grad_output, normal({33, 37}, 47)}, 1), precision.type).narrow(1, 0, 27);
    const at::ScalarType accumulator = precision.type == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor grad = at::ones({27, 40}, at::TensorOptions(device()).dtype(accumulator));
    accumulate_weight_gradient(grad, rows, on_device(input, precision.type));
    CHECK_CLOSE(grad, at::matmul(grad_output.t(), input) + 1.0,
                precision.type == at::kDouble ? 1e-12 : 2e-6);
  }
}

TEST_CASE("a bias gradient is the sum over tokens, added in fp32", "[kernels]") {
  at::set_num_threads(1);
  struct Size {
    int64_t tokens, columns;
  };
  for (const Size size : {Size{1, 7}, {130, 172}, {600, 64}, {33, 1}, {5000, 768}, {257, 2304}}) {
    for (const Precision precision : precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor grad_output = normal({size.tokens, 1, size.columns}, 48);
      const at::Tensor local = on_device(grad_output, precision.type);
      const at::ScalarType accumulator = precision.type == at::kDouble ? at::kDouble : at::kFloat;
      const at::Tensor ones =
          at::ones({size.columns}, at::TensorOptions(device()).dtype(accumulator));
      at::Tensor grad = ones.clone(), again = ones.clone();
      accumulate_bias_gradient(grad, local);
      accumulate_bias_gradient(again, local);
      CHECK_CLOSE(grad, grad_output.sum(at::IntArrayRef({0, 1})) + 1.0,
                  precision.type == at::kDouble ? 1e-12 : 2e-6);
      CHECK(same_bits(grad, again));
    }
  }
}

TEST_CASE("products of bf16 repeat bit for bit, and a row does not depend on its neighbours",
          "[kernels]") {
  // The layers' forward and input gradient are at::mm; the rounding to bf16 is their only one.
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    const at::Tensor x64 = normal({130, 96}, 35), w64 = normal({172, 96}, 36);
    const at::Tensor x = on_device(x64, at::kBFloat16), w = on_device(w64, at::kBFloat16);
    const at::Tensor dy = on_device(normal({130, 172}, 37), at::kBFloat16);
    const at::Tensor y = at::mm(x, w.t());
    CHECK_CLOSE(y, at::mm(x64, w64.t()), kOneBf16Rounding);
    at::Tensor grad = at::zeros({172, 96}, x.options().dtype(at::kFloat));
    accumulate_weight_gradient(grad, dy, x);
    for (int repeat = 0; repeat < 5; ++repeat) {
      CHECK(same_bits(at::mm(x.clone(), w.t()), y));
      CHECK(same_bits(at::mm(dy, w), at::mm(dy.clone(), w)));
      at::Tensor again = at::zeros_like(grad);
      accumulate_weight_gradient(again, dy, x);
      CHECK(same_bits(again, grad));
    }
  }
  at::set_num_threads(1);
}
