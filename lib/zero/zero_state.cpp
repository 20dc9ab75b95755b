// The state: initial values, loading, and the pieces that checkpoints and audits are told about.
#include <ATen/Functions.h>

#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "zero/zero_impl.h"

namespace tptrain::zero {
namespace {

using sharding::StateDict;
using sharding::StateKind;
using sharding::StatePiece;

StatePiece state_piece(const BucketPiece& piece, StateKind kind, bool save, at::Tensor data) {
  return {.kind = kind,
          .spec = piece.slice->spec,
          .begin = piece.slice_begin,
          .end = piece.slice_begin + piece.count,
          .save = save && piece.slice->owned,
          .data = std::move(data)};
}

}  // namespace

void ZeroOptimizer::Impl::clear_moments() {
  for (BucketState& state : states) {
    state.exp_avg.zero_();
    state.exp_avg_sq.zero_();
  }
  updates.zero_();
}

void ZeroOptimizer::initialise(uint64_t seed) {
  for (BucketState& state : impl_->states) {
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      at::Tensor values = state.bucket->data.narrow(0, piece.bucket_begin, piece.count);
      sharding::fill_initial(values, piece.slice->spec, piece.slice_begin,
                             piece.slice_begin + piece.count, piece.slice->init, seed);
    }
  }
  impl_->gather_data();
  impl_->clear_moments();
}

void ZeroOptimizer::load_parameters(const sharding::TensorSource& source) {
  for (BucketState& state : impl_->states) {
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      at::Tensor values = state.bucket->data.narrow(0, piece.bucket_begin, piece.count);
      const int64_t end = piece.slice_begin + piece.count;
      if (values.is_cpu()) {
        source.read_slice(piece.slice->spec, piece.slice_begin, end, values);
        continue;
      }
      at::Tensor on_cpu = at::empty({piece.count}, at::TensorOptions().dtype(at::kFloat));
      source.read_slice(piece.slice->spec, piece.slice_begin, end, on_cpu);
      values.copy_(on_cpu);
    }
  }
  impl_->gather_data();
  impl_->clear_moments();
}

StateDict ZeroOptimizer::state_dict() {
  StateDict dict;
  for (const StateKind kind : {StateKind::master, StateKind::exp_avg, StateKind::exp_avg_sq}) {
    for (BucketState& state : impl_->states) {
      // Cut at the shards' borders also where this rank holds all of them (stage 0), so that it
      // saves what it would save in stage 1.
      for (int owner = 0; owner < impl_->dp.size(); ++owner) {
        const auto [begin, end] = impl_->buckets.shard_range(*state.bucket, owner);
        if (begin < state.held_begin || end > state.held_end) continue;
        for (const BucketPiece& piece : pieces_of(*state.bucket, begin, end)) {
          const int64_t held = piece.bucket_begin - state.held_begin;
          at::Tensor data = kind == StateKind::master
                                ? state.bucket->data.narrow(0, piece.bucket_begin, piece.count)
                            : kind == StateKind::exp_avg
                                ? state.exp_avg.narrow(0, held, piece.count)
                                : state.exp_avg_sq.narrow(0, held, piece.count);
          dict.pieces.push_back(
              state_piece(piece, kind, owner == impl_->dp.rank(), std::move(data)));
        }
      }
    }
  }
  return dict;
}

void ZeroOptimizer::state_loaded(int64_t updates_done) {
  if (updates_done < 0) {
    throw InternalError(problem(cat(updates_done, " updates done")).must("not be negative"));
  }
  // Stage 0 holds, and has just loaded, all of it.
  if (impl_->options.zero_stage == 1) impl_->gather_data();
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
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      if (!piece.slice->owned) continue;
      dict.pieces.push_back(
          state_piece(piece, StateKind::master, /*save=*/true,
                      state.bucket->main_grad.narrow(0, piece.bucket_begin, piece.count)));
    }
  }
  return dict;
}

}  // namespace tptrain::zero
