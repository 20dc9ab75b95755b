// The state: initial values, loading, and the pieces that checkpoints are told about.
#include <ATen/Functions.h>

#include <functional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "parameters/load_parameters.h"
#include "zero/zero_impl.h"

namespace tptrain::zero {
namespace {

using sharding::StateDict;
using sharding::StateKind;
using sharding::StatePiece;

StatePiece state_piece(const BucketPiece& piece, const StateKind& kind, bool save,
                       at::Tensor data) {
  return {.kind = kind,
          .spec = piece.slice->spec,
          .begin = piece.slice_begin,
          .end = piece.slice_begin + piece.count,
          .save = save && piece.slice->owned,
          .data = std::move(data)};
}

// This rank's shard of the masters: the others' come from the ranks that have them.
std::vector<parameters::SliceValues> masters_of_shard(const std::vector<BucketState>& states) {
  std::vector<parameters::SliceValues> masters;
  for (const BucketState& state : states) {
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      masters.push_back(
          {.slice = piece.slice,
           .begin = piece.slice_begin,
           .values = state.master.narrow(0, piece.bucket_begin - state.held_begin, piece.count)});
    }
  }
  return masters;
}

}  // namespace

void ZeroOptimizer::Impl::clear_slots() {
  for (BucketState& state : states) {
    for (at::Tensor& slot : state.slots) slot.zero_();
  }
  updates.zero_();
}

void ZeroOptimizer::Impl::publish(Written written) {
  gatherer.invalidate();
  if (layout.parameter_buffers == Buffers::shared) return;
  for (BucketState& state : states) {
    const bool holds_all = layout.holds_all || !state.bucket->trains;
    if (holds_all && written == Written::shard && dp.size() > 1) {
      dp.all_gather(state.master, state.shard_of(state.master));
    }
    if (!layout.own_masters || !state.bucket->trains) continue;
    state.bucket->data.narrow(0, state.held_begin, state.held_end - state.held_begin)
        .copy_(state.master);
  }
}

void ZeroOptimizer::initialise(uint64_t seed, const Locally& locally) {
  impl_->finish_update();
  locally([&] { parameters::draw_parameters(masters_of_shard(impl_->states), seed); });
  impl_->publish(Impl::Written::shard);
  impl_->clear_slots();
}

void ZeroOptimizer::load_parameters(const sharding::TensorSource& source, const Locally& locally) {
  impl_->finish_update();
  locally([&] { parameters::load_parameters(masters_of_shard(impl_->states), source); });
  impl_->publish(Impl::Written::shard);
  impl_->clear_slots();
}

// Cut at the shards' borders also where this rank holds all of them (stage 0), so that it saves
// what it would save in stage 1.
void ZeroOptimizer::Impl::append_state(
    StateDict& dict, const StateKind& kind,
    const std::function<at::Tensor(const BucketState&)>& held_of) const {
  for (const BucketState& state : states) {
    if (!state.bucket->trains && options.frozen_values == FrozenValues::elsewhere) continue;
    const at::Tensor held = held_of(state);
    if (!held.defined()) continue;
    for (int owner = 0; owner < dp.size(); ++owner) {
      const auto [begin, end] = buckets.shard_range(*state.bucket, owner);
      if (begin < state.held_begin || end > state.held_end) continue;
      for (const BucketPiece& piece : pieces_of(*state.bucket, begin, end)) {
        dict.pieces.push_back(
            state_piece(piece, kind, owner == dp.rank(),
                        held.narrow(0, piece.bucket_begin - state.held_begin, piece.count)));
      }
    }
  }
}

StateDict ZeroOptimizer::state_dict() {
  impl_->finish_update();
  StateDict dict;
  impl_->append_state(dict, sharding::kMaster,
                      [](const BucketState& state) { return state.master; });
  const optim::UpdateRule& rule = *impl_->layout.rule;
  for (const std::string& name : rule.all_slots()) {
    impl_->append_state(dict, name, [&](const BucketState& state) {
      const std::vector<std::string>& slots = rule.slots(state.bucket->unit);
      const auto found = std::ranges::find(slots, name);
      if (!state.bucket->trains || found == slots.end()) return at::Tensor();
      return state.slots[static_cast<size_t>(found - slots.begin())];
    });
  }
  return dict;
}

void ZeroOptimizer::state_loaded(int64_t updates_done) {
  if (updates_done < 0) {
    throw InternalError(problem(cat(updates_done, " updates done")).must("not be negative"));
  }
  impl_->finish_update();
  impl_->publish(Impl::Written::held);
  impl_->updates.fill_(static_cast<double>(updates_done));
}

int64_t ZeroOptimizer::updates_done() const {
  return static_cast<int64_t>(impl_->updates.item<float>());
}

StateDict ZeroOptimizer::gradient_pieces() {
  if (impl_->phase == Phase::accumulating) {
    throw InternalError(problem("gradient_pieces() was called before finish_reduction()")
                            .must("follow it: this rank's gradient is not yet the sum over dp"));
  }
  StateDict dict;
  for (BucketState& state : impl_->states) {
    if (!state.bucket->trains) continue;
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      if (!piece.slice->owned) continue;
      const int64_t at = piece.bucket_begin - state.shard_begin;
      dict.pieces.push_back(state_piece(piece, sharding::kMaster, /*save=*/true,
                                        state.grad_shard.narrow(0, at, piece.count)));
    }
  }
  return dict;
}

}  // namespace tptrain::zero
