#include "optim/adamw_composition.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "optim/stochastic_rounding.h"

namespace tptrain::optim {

namespace {

// What one call of the fused kernel works on: the scaled copy of the gradient takes 64 MiB. Pieces
// with bf16 state have up to four fp32 copies and the random words beside it, so they count more.
constexpr int64_t kCallElements = int64_t{1} << 24;
constexpr int64_t kNarrowWeight = 4;

/// Elements [begin, end) of a range.
struct Piece {
  AdamWRange* range = nullptr;
  int64_t begin = 0;
  int64_t end = 0;

  at::Tensor of(const at::Tensor& tensor) const { return tensor.narrow(0, begin, end - begin); }
};

bool is_narrow(const AdamWRange& range) {
  return range.master.scalar_type() != at::kFloat || range.exp_avg.scalar_type() != at::kFloat;
}

bool updated_alike(const AdamWOptions& a, const AdamWOptions& b) {
  return a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps &&
         a.weight_decay == b.weight_decay && a.learning_rate_scale == b.learning_rate_scale;
}

/// What all pieces of an update share, as the kernel wants it.
struct Shared {
  at::Tensor updates;  // the number of this update, where it is finite
  at::Tensor gradient_scale;
  at::Tensor finite;
  at::Tensor found_inf;  // the kernel returns at once where this is 1
  AdamWStep step;
};

void write_back(const Piece& piece, const at::Tensor& master, const at::Tensor& exp_avg,
                const at::Tensor& exp_avg_sq, const Shared& shared) {
  const AdamWRange& range = *piece.range;
  // Where the step was not finite the copies are still what they were widened from, and round to
  // just that.
  if (range.exp_avg.scalar_type() != at::kFloat) {
    piece.of(range.exp_avg).copy_(exp_avg);
    piece.of(range.exp_avg_sq).copy_(exp_avg_sq);
  }
  if (range.master.scalar_type() != at::kFloat) {
    const std::array<uint32_t, 2> key = rounding_key(shared.step.seed, range.rounding->spec.name);
    piece.of(range.master)
        .copy_(round_stochastically(
            master, rounding_bits(*range.rounding, key, shared.updates, piece.begin, piece.end)));
  }
  if (range.weights.defined()) {
    const at::Tensor weights = piece.of(range.weights);
    weights.copy_(
        at::where(shared.finite, piece.of(range.master).to(weights.scalar_type()), weights));
  }
}

/// All of the same options.
void update_pieces(const std::vector<Piece>& pieces, const Shared& shared) {
  if (pieces.empty()) return;
  std::vector<at::Tensor> master, gradient, exp_avg, exp_avg_sq;
  for (const Piece& piece : pieces) {  // views where the state is fp32, copies where it is not
    master.push_back(piece.of(piece.range->master).to(at::kFloat));
    gradient.push_back(piece.of(piece.range->gradient));
    exp_avg.push_back(piece.of(piece.range->exp_avg).to(at::kFloat));
    exp_avg_sq.push_back(piece.of(piece.range->exp_avg_sq).to(at::kFloat));
  }
  // Not by the kernel's grad_scale: it would leave the caller's gradient scaled.
  const std::vector<at::Tensor> scaled = at::_foreach_mul(gradient, shared.gradient_scale);
  const std::vector<at::Tensor> no_amsgrad = {}, steps(pieces.size(), shared.updates);
  const AdamWOptions& options = pieces.front().range->options;
  at::_fused_adamw_(master, scaled, exp_avg, exp_avg_sq, no_amsgrad, steps,
                    shared.step.learning_rate * options.learning_rate_scale, options.beta1,
                    options.beta2, options.weight_decay, options.eps, /*amsgrad=*/false,
                    /*maximize=*/false, /*grad_scale=*/std::nullopt, shared.found_inf);
  for (size_t i = 0; i < pieces.size(); ++i)
    write_back(pieces[i], master[i], exp_avg[i], exp_avg_sq[i], shared);
}

}  // namespace

void adamw_by_composition(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                          const at::Tensor& gradient_scale, const at::Tensor& finite,
                          const AdamWStep& step) {
  updates.add_(finite.to(at::kFloat).reshape(updates.sizes()));
  const Shared shared{.updates = updates.reshape({}),
                      .gradient_scale = gradient_scale.reshape({}),
                      .finite = finite.reshape({}),
                      .found_inf = finite.logical_not().to(at::kFloat).reshape({}),
                      .step = step};
  std::vector<Piece> pieces;
  int64_t weight = 0;  // of the pieces gathered, in elements
  const auto flush = [&] {
    update_pieces(pieces, shared);
    pieces.clear();
    weight = 0;
  };
  for (AdamWRange& range : ranges) {
    const int64_t element_weight = is_narrow(range) ? kNarrowWeight : 1;
    if (!pieces.empty() && !updated_alike(pieces.front().range->options, range.options)) flush();
    for (int64_t begin = 0; begin < range.master.numel();) {
      const int64_t count =
          std::min(range.master.numel() - begin, (kCallElements - weight) / element_weight);
      if (count > 0) pieces.push_back({&range, begin, begin + count});
      begin += count;
      weight += count * element_weight;
      if (kCallElements - weight < element_weight) flush();
    }
  }
  flush();
}

}  // namespace tptrain::optim
