// The tensor-parallel layers cut over all ranks, against the full weights on one.
#include <ATen/ATen.h>

#include <limits>
#include <map>

#include "kernels/fp8.h"
#include "support/all_ranks.h"
#include "support/catch.h"
#include "support/layer_checks.h"
#include "tensor_parallel/fp8_linear.h"

namespace tptrain::testing {
namespace {

TEST_CASE("a column-parallel linear equals the full linear") {
  check_column_parallel_linear(AllRanks().tp());
}

TEST_CASE("a row-parallel linear equals the full linear") {
  check_row_parallel_linear(AllRanks().tp());
}

TEST_CASE("the cut vocabulary's embedding equals the full table's") {
  check_vocab_parallel_embedding(AllRanks().tp());
}

TEST_CASE("the cut vocabulary's cross entropy equals that of full logits") {
  check_vocab_parallel_cross_entropy(AllRanks().tp());
}

TEST_CASE("a region sums what leaves it, gathers what enters it, and padding reaches nothing") {
  check_sequence_region(AllRanks().tp());
}

// --- FP8 of ranks that share scales

using kernels::Fp8;
using kernels::Fp8Form;
using kernels::Fp8Matrix;
using tensor_parallel::Fp8Cut;
using tensor_parallel::Fp8Linear;
using tensor_parallel::Fp8Observer;
using tensor_parallel::GatheredSequence;
using tensor_parallel::SequenceParallel;

class Seen final : public Fp8Observer {
 public:
  void cast(const parameters::Parameter&, Of of, const at::Tensor&,
            const Fp8Matrix& cast) override {
    of_kind[of] = cast;
  }
  std::map<Of, Fp8Matrix> of_kind;
};

at::Tensor bytes(const at::Tensor& fp8) { return fp8.contiguous().view(at::kByte); }

/// Some 2^12 times larger at the end of each axis than at its beginning, so that the largest
/// magnitudes of ranks are far apart.
at::Tensor slanted(int64_t rows, int64_t columns, int64_t seed) {
  at::Tensor x = at::arange(rows * columns, at::kDouble).add_(seed).mul_(12.9898).sin_();
  x = x.view({rows, columns}) * at::exp2(at::linspace(-6, 6, rows, at::kDouble)).unsqueeze(1);
  return (x * at::exp2(at::linspace(-6, 6, columns, at::kDouble))).to(at::kBFloat16);
}

at::Tensor product(const at::Tensor& a, const Fp8Matrix& of_a, const at::Tensor& b,
                   const Fp8Matrix& of_b, kernels::Fp8Sums sums, at::ScalarType dtype) {
  at::Tensor out = at::empty({a.size(0), b.size(0)}, dtype);
  kernels::fp8_product_out(out, {a, of_a.scale}, {b, of_b.scale}, sums);
  return out;
}

struct Axis {
  int64_t begin, size;
  at::Tensor rows(const at::Tensor& x) const { return x.narrow(0, begin, size).contiguous(); }
  at::Tensor columns(const at::Tensor& x) const { return x.narrow(1, begin, size).contiguous(); }
};

/// This rank's rows of x [T, C], as [n, B, C]; `padding` behind the sequence.
at::Tensor slice_of(const at::Tensor& x, const tensor_parallel::SequenceRegion& region,
                    int64_t batch, double padding) {
  at::Tensor slice = at::full({region.rows(), batch, x.size(1)}, padding, x.options());
  const int64_t counted = region.counted_rows();
  if (counted > 0)
    slice.narrow(0, 0, counted)
        .copy_(x.narrow(0, region.first_position() * batch, counted * batch)
                   .view({counted, batch, x.size(1)}));
  return slice;
}

TEST_CASE("FP8 that shares scales casts parts as the whole is cast, and gathers its bytes") {
  AllRanks ranks;
  comm::Communicator& tp = ranks.tp();
  constexpr int64_t kBatch = 2, kIn = 48;
  const int64_t out = 32 * tp.size();
  const Axis own{.begin = 32 * tp.rank(), .size = 32};
  using Of = Fp8Observer::Of;
  using kernels::Fp8Sums;
  for (const int64_t length : {int64_t{8} * tp.size(), int64_t{8} * tp.size() - 9}) {
    CAPTURE(length, tp.rank());
    const at::Tensor w = slanted(out, kIn, 1), x = slanted(length * kBatch, kIn, 2),
                     dy = slanted(length * kBatch, out, 3);
    const Fp8Matrix of_w = kernels::to_fp8(w, Fp8::e4m3, Fp8Form::both),
                    of_x = kernels::to_fp8(x, Fp8::e4m3, Fp8Form::both),
                    of_dy = kernels::to_fp8(dy, Fp8::e5m2, Fp8Form::both);
    Seen seen;
    const tensor_parallel::Fp8Settings settings{.observer = &seen, .tp = &tp};
    const tensor_parallel::SequenceRegion region(tp, length, SequenceParallel::on);

    {  // Cut by output features: y = x W^T of the own ones.
      parameters::Parameter weight;
      weight.shape = {own.size, kIn};
      weight.data = own.rows(w);
      weight.main_grad = at::zeros(weight.shape);
      Fp8Linear linear(settings, Fp8Cut::columns, weight);
      Fp8Linear::share_weight_amax({&linear});
      const at::Tensor slice = slice_of(x, region, kBatch, 3e7);  // nobody casts what is padding
      GatheredSequence gathered = linear.start_gather(slice, region);
      CHECK(gathered.scale().equal(of_x.scale));
      CHECK(bytes(gathered.whole()).view(-1).equal(bytes(of_x.rows).view(-1)));
      tensor_parallel::LinearInput input;
      const at::Tensor y = linear.forward(gathered, nullptr, &input);
      CHECK(bytes(seen.of_kind.at(Of::weight).rows).equal(bytes(own.rows(of_w.rows))));
      CHECK(y.view({-1, own.size})
                .equal(product(of_x.rows, of_x, own.rows(of_w.rows), of_w, Fp8Sums::fast,
                               at::kBFloat16)));
      const int64_t exchanged = tp.counters().all_reduces;
      GatheredSequence again = linear.start_gather(slice, region, input.cast.scale);
      CHECK(tp.counters().all_reduces == exchanged);  // its scale is known
      CHECK(bytes(again.whole()).equal(bytes(gathered.whole())));
      Fp8Matrix grad;
      linear.input_gradient_reduced(own.columns(dy).view({length, kBatch, own.size}), region, grad)
          .finish();
      CHECK(bytes(grad.columns).equal(bytes(own.rows(of_dy.columns))));
      linear.weight_gradient(grad, again.whole(), input);
      CHECK(weight.main_grad.equal(
          product(own.rows(of_dy.columns), of_dy, of_x.columns, of_x, Fp8Sums::split, at::kFloat)));
    }
    {  // Cut by input features: y = dy W of the own ones, the names the other way round.
      const at::Tensor turned = w.t().contiguous();  // [48, out]
      parameters::Parameter weight;
      weight.shape = {kIn, own.size};
      weight.data = own.columns(turned);
      weight.main_grad = at::zeros(weight.shape);
      Fp8Linear linear(settings, Fp8Cut::rows, weight);
      Fp8Linear::share_weight_amax({&linear});
      tensor_parallel::LinearInput input;
      const at::Tensor part = own.columns(dy).view({length, kBatch, own.size});
      linear.forward_reduced(part, nullptr, region, &input).finish();
      const Fp8Matrix as_input = kernels::to_fp8(dy, Fp8::e4m3, Fp8Form::both);
      CHECK(input.cast.scale.equal(as_input.scale));
      CHECK(bytes(seen.of_kind.at(Of::input).rows).equal(bytes(own.columns(as_input.rows))));
      CHECK(bytes(seen.of_kind.at(Of::weight).columns).equal(bytes(own.rows(of_w.rows))));
      GatheredSequence gradient = linear.start_gather(slice_of(x, region, kBatch, 3e7), region);
      const Fp8Matrix as_gradient = kernels::to_fp8(x, Fp8::e5m2, Fp8Form::both);
      CHECK(bytes(gradient.whole()).view(-1).equal(bytes(as_gradient.rows).view(-1)));
      Fp8Matrix grad;
      const at::Tensor dx = linear.input_gradient(gradient, grad);
      CHECK(dx.view({-1, own.size})
                .equal(product(as_gradient.rows, as_gradient, own.rows(of_w.rows), of_w,
                               Fp8Sums::split, at::kBFloat16)));
      CHECK(bytes(grad.columns).equal(bytes(as_gradient.columns)));
      linear.weight_gradient(grad, part, input);
      CHECK(weight.main_grad.equal(product(as_gradient.columns, as_gradient,
                                           own.rows(as_input.columns), as_input, Fp8Sums::split,
                                           at::kFloat)));
    }
  }
}

TEST_CASE("what is no number on one rank is none in the products of FP8 of all") {
  AllRanks ranks;
  comm::Communicator& tp = ranks.tp();
  for (const double value :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (int culprit = 0; culprit < tp.size(); ++culprit) {
      CAPTURE(value, culprit);
      const tensor_parallel::Fp8Settings settings{.tp = &tp};
      const tensor_parallel::SequenceRegion region(tp, 4 * tp.size(), SequenceParallel::on);
      parameters::Parameter weight;
      weight.shape = {16, 16};
      weight.data = at::ones({16, 16}, at::kBFloat16);
      Fp8Linear linear(settings, Fp8Cut::columns, weight);
      Fp8Linear::share_weight_amax({&linear});
      at::Tensor slice = at::ones({4, 1, 16}, at::kBFloat16);
      if (tp.rank() == culprit) slice[2][0][7] = value;
      GatheredSequence gathered = linear.start_gather(slice, region);
      CHECK(linear.forward(gathered, nullptr, nullptr)[4 * culprit + 2].isnan().all().item<bool>());
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
