#include "support/layer_checks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/partition.h"
#include "tensor_parallel/sequence_region.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::testing {

namespace {

using parameters::TpGradient;
using tensor_parallel::Bias;
using tensor_parallel::ColumnParallelLinear;
using tensor_parallel::Range;
using tensor_parallel::RowParallelLinear;
using tensor_parallel::SequenceParallel;
using tensor_parallel::SequenceRegion;
using tensor_parallel::share_of;

// fp32 sums of a few hundred terms in another order differ by some 1e-7 of the largest element.
constexpr double kTolerance = 1e-5;
constexpr int64_t kVocab = 19;  // divides by no number of ranks
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

at::Tensor leaf(const at::Tensor& tensor) { return tensor.clone().requires_grad_(true); }

at::Tensor columns(const at::Tensor& tensor, const Range& range) {
  return tensor.narrow(-1, range.begin, range.size()).contiguous();
}

// What this rank holds of `whole` [S, ..] outside the region, `padding` in the rows beyond S.
at::Tensor slice_of_sequence(const at::Tensor& whole, const SequenceRegion& region,
                             double padding) {
  std::vector<int64_t> shape = whole.sizes().vec();
  shape[0] = region.rows();
  at::Tensor slice = at::full(shape, padding, whole.options());
  const int64_t begin = std::min(region.first_position(), whole.size(0));
  const int64_t held = std::min(region.rows(), whole.size(0) - begin);
  slice.narrow(0, 0, held).copy_(whole.narrow(0, begin, held));
  return slice;
}

}  // namespace

void check_column_parallel_linear(comm::Communicator& tp) {
  const Range q_range = share_of(13, tp.rank(), tp.size());
  const Range k_range = share_of(5, tp.rank(), tp.size());
  for (const Bias bias : {Bias::none, Bias::learned}) {
    CAPTURE(bias == Bias::learned);
    ColumnParallelLinear layer({.name = "packed",
                                .outputs = {{.name = "q", .features = 13, .local = q_range},
                                            {.name = "k", .features = 5, .local = k_range}},
                                .in_features = 8,
                                .bias = bias},
                               tp);
    const Tensors weights = {{"q.weight", normal_values("q", {13, 8})},
                             {"k.weight", normal_values("k", {5, 8})},
                             {"q.bias", normal_values("qb", {13})},
                             {"k.bias", normal_values("kb", {5})}};
    bind_parameters(layer.parameters(), weights);
    Tensors leaves;
    for (const auto& [name, weight] : weights) leaves[name] = leaf(weight);

    const at::Tensor x = normal_values("x", {3, 2, 8});
    const at::Tensor reference_x = leaf(x);
    const at::Tensor grad_q = normal_values("gq", {3, 2, 13});
    const at::Tensor grad_k = normal_values("gk", {3, 2, 5});
    at::Tensor q = at::matmul(reference_x, leaves["q.weight"].t());
    at::Tensor k = at::matmul(reference_x, leaves["k.weight"].t());
    if (bias == Bias::learned) {
      q = q + leaves["q.bias"];
      k = k + leaves["k.bias"];
    }
    ((q * grad_q).sum() + (k * grad_k).sum()).backward();

    const at::Tensor y = layer.forward(x);
    CHECK(relative_error(y, at::cat({columns(q.detach(), q_range), columns(k.detach(), k_range)},
                                    -1)) < kTolerance);
    const at::Tensor grad = at::cat({columns(grad_q, q_range), columns(grad_k, k_range)}, -1);
    tensor_parallel::LinearGradient nothing;  // not used without FP8 and adapters
    layer.weight_gradient(grad, x, nothing, {});
    const SequenceRegion region(tp, /*length=*/3, SequenceParallel::off);
    const at::Tensor grad_x = layer.input_gradient(grad, region, {}, nothing).finish();
    CHECK(relative_error(grad_x, reference_x.grad()) < kTolerance);

    Tensors gradients;
    for (const auto& [name, weight] : leaves) {
      if (weight.grad().defined()) gradients[name] = weight.grad();
    }
    const GradientError error = gradient_error(layer.parameters(), gradients);
    CAPTURE(error.name);
    CHECK(error.worst < kTolerance);
  }
}

void check_row_parallel_linear(comm::Communicator& tp) {
  const Range range = share_of(11, tp.rank(), tp.size());
  const Tensors weights = {{"o.weight", normal_values("o", {6, 11})},
                           {"o.bias", normal_values("ob", {6})}};
  for (const SequenceParallel sequence_parallel : {SequenceParallel::off, SequenceParallel::on}) {
    CAPTURE(sequence_parallel == SequenceParallel::on);
    const SequenceRegion region(tp, /*length=*/5, sequence_parallel);
    RowParallelLinear layer(
        {.name = "o",
         .in_features = 11,
         .out_features = 6,
         .local = range,
         .bias = Bias::learned,
         .bias_gradient = region.sliced() ? TpGradient::partial : TpGradient::whole},
        tp);
    bind_parameters(layer.parameters(), weights);
    const at::Tensor weight = leaf(weights.at("o.weight"));
    const at::Tensor bias = leaf(weights.at("o.bias"));

    const at::Tensor whole_x = normal_values("x", {5, 2, 11});
    const at::Tensor reference_x = leaf(whole_x);
    const at::Tensor grad = normal_values("g", {5, 2, 6});
    const at::Tensor expected = at::matmul(reference_x, weight.t()) + bias;
    (expected * grad).sum().backward();

    const at::Tensor x = columns(whole_x, range);
    at::Tensor sum = layer.forward(x, region, nullptr).finish();
    // Gathered, so that rows beyond the sequence do not count.
    CHECK(relative_error(region.gather(sum), expected.detach()) < kTolerance);

    const at::Tensor grad_sum = slice_of_sequence(grad, region, /*padding=*/0.0);
    layer.bias_backward(grad_sum);
    tensor_parallel::GatheredSequence grad_output = region.start_gather(grad_sum);
    tensor_parallel::LinearGradient nothing;  // not used without FP8 and adapters
    const at::Tensor grad_x = layer.input_gradient(grad_output, {}, nothing);
    layer.weight_gradient(grad_output.whole(), x, nothing, {});
    CHECK(relative_error(grad_x, columns(reference_x.grad(), range)) < kTolerance);
    sum_gradients_over_tp(layer.parameters(), tp);
    const GradientError error =
        gradient_error(layer.parameters(), {{"o.weight", weight.grad()}, {"o.bias", bias.grad()}});
    CAPTURE(error.name);
    CHECK(error.worst < kTolerance);
  }

  RowParallelLinear unbiased({.name = "o", .in_features = 11, .out_features = 6, .local = range},
                             tp);
  CHECK(unbiased.parameters().size() == 1);
  at::Tensor sum = at::ones({2, 6});
  unbiased.bias_backward(sum);
  CHECK(at::equal(sum, at::ones({2, 6})));
}

void check_vocab_parallel_embedding(comm::Communicator& tp) {
  const at::Tensor whole = normal_values("table", {kVocab, 4});
  at::Tensor ids = token_ids("ids", 5, 3, kVocab);
  ids[0][0] = 0;  // both ends of the vocabulary, and rows that occur twice
  ids[1][0] = kVocab - 1;
  ids[2][0] = kVocab - 1;
  const at::Tensor reference_table = leaf(whole);
  const at::Tensor grad = normal_values("g", {5, 3, 4});
  const at::Tensor expected = at::index_select(reference_table, 0, ids.flatten()).view({5, 3, 4});
  (expected * grad).sum().backward();

  for (const SequenceParallel sequence_parallel : {SequenceParallel::off, SequenceParallel::on}) {
    CAPTURE(sequence_parallel == SequenceParallel::on);
    const SequenceRegion region(tp, /*length=*/5, sequence_parallel);
    const auto table = tensor_parallel::vocab_parallel_table(
        {.name = "embed", .vocab_size = kVocab, .hidden_size = 4}, tp);
    bind_parameters({table.get()}, {{"embed.weight", whole}});
    const at::Tensor y = tensor_parallel::vocab_parallel_embedding(ids, *table, region);
    // A look-up rounds nothing.
    CHECK(at::equal(y, slice_of_sequence(expected.detach(), region, /*padding=*/0.0)));
    tensor_parallel::add_table_rows(*table,
                                    tensor_parallel::vocab_parallel_embedding_backward(
                                        slice_of_sequence(grad, region, /*padding=*/kNaN), region),
                                    ids);
    CHECK(gradient_error({table.get()}, {{"embed.weight", reference_table.grad()}}).worst <
          kTolerance);
  }
}

void check_vocab_parallel_cross_entropy(comm::Communicator& tp) {
  constexpr int64_t tokens = 6;
  const auto table = tensor_parallel::vocab_parallel_table(
      {.name = "head", .vocab_size = kVocab, .hidden_size = 4}, tp);
  const Range range = share_of(kVocab, tp.rank(), tp.size());
  const at::Tensor whole = normal_values("logits", {tokens, kVocab}) * 4;
  at::Tensor targets = token_ids("targets", tokens, 1, kVocab).flatten();
  targets[0] = 0;
  targets[1] = kVocab - 1;
  targets[2] = -100;
  const at::Tensor scale = at::scalar_tensor(3.0 / 9, at::kFloat);

  for (const double z_loss : {0.0, 0.1}) {
    CAPTURE(z_loss);
    const at::Tensor logits = leaf(whole);
    const at::Tensor cross_entropy =
        at::cross_entropy_loss(logits, targets, /*weight=*/{}, at::Reduction::Sum, -100);
    const at::Tensor squared = (at::logsumexp(logits, {1}).square() * targets.ne(-100)).sum();
    ((cross_entropy + squared * z_loss) * scale).backward();

    tensor_parallel::VocabParallelCrossEntropy local(columns(whole, range), targets, *table, tp);
    const at::Tensor sums = local.sums();
    CHECK(relative_error(sums[0], cross_entropy.detach()) < 1e-6);
    CHECK(relative_error(sums[1], squared.detach()) < 1e-6);
    const at::Tensor grad = std::move(local).backward(scale, z_loss);
    CHECK(relative_error(grad, columns(logits.grad(), range)) < kTolerance);
    CHECK(at::count_nonzero(grad[2]).item<int64_t>() == 0);
  }

  tensor_parallel::VocabParallelCrossEntropy ignored(
      columns(whole, range), at::full({tokens}, -100, at::kLong), *table, tp);
  CHECK(at::equal(ignored.sums(), at::zeros({2})));
  CHECK(at::count_nonzero(std::move(ignored).backward(scale, 0.1)).item<int64_t>() == 0);
}

void check_sequence_region(comm::Communicator& tp) {
  // Rank r's share is r + 1 times the whole: the sum must see every rank once.
  const double sum_of_factors = tp.size() * (tp.size() + 1) / 2.0;
  for (const int64_t length : {1, 2, 5, 7, 8}) {
    for (const SequenceParallel sequence_parallel : {SequenceParallel::off, SequenceParallel::on}) {
      CAPTURE(length, sequence_parallel == SequenceParallel::on);
      const SequenceRegion region(tp, length, sequence_parallel);
      const bool sliced = sequence_parallel == SequenceParallel::on && tp.size() > 1;
      CHECK(region.length() == length);
      CHECK(region.sliced() == sliced);
      CHECK(region.rows() == (sliced ? (length + tp.size() - 1) / tp.size() : length));
      CHECK(region.first_position() == (sliced ? tp.rank() * region.rows() : 0));

      const at::Tensor whole = normal_values("x", {length, 2, 3});
      const comm::CommCounters before = tp.counters();
      const at::Tensor reduced = region.reduce(whole * (tp.rank() + 1.0));
      const at::Tensor expected =
          slice_of_sequence(whole * sum_of_factors, region, /*padding=*/0.0);
      CHECK(relative_error(reduced, expected) < kTolerance);
      const int64_t held = std::clamp<int64_t>(length - region.first_position(), 0, region.rows());
      CHECK(at::count_nonzero(reduced.narrow(0, held, region.rows() - held)).item<int64_t>() == 0);

      const at::Tensor slice = slice_of_sequence(whole, region, /*padding=*/kNaN);
      CHECK(at::equal(region.gather(slice), whole));
      CHECK(region.gather(slice).is_contiguous());
      const comm::CommCounters& after = tp.counters();
      CHECK(after.all_reduces - before.all_reduces == (!sliced && tp.size() > 1 ? 1 : 0));
      CHECK(after.reduce_scatters - before.reduce_scatters == (sliced ? 1 : 0));
      CHECK(after.all_gathers - before.all_gathers == (sliced ? 2 : 0));
    }
  }
}

}  // namespace tptrain::testing
