// Initial values, loading, the pieces that checkpoints are told about, and audits.
#include "zero/sharded_state.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/fp8.h"
#include "optim/update_rule.h"
#include "parameters/load_parameters.h"
#include "zero/bucket_state.h"
#include "zero/gatherer.h"
#include "zero/gradient_reducer.h"
#include "zero/shard_update.h"
#include "zero/value_hash.h"

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

// As updates do from then on.
void find_amax(BucketState& state) {
  if (!state.held_amax.defined()) return;
  state.held_amax.zero_();
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.held_begin, state.held_end)) {
    const at::Tensor amax = held_amax_of(state, *piece.parameter);
    if (!amax.defined()) continue;
    kernels::raise_amax(amax,
                        state.master.narrow(0, piece.bucket_begin - state.held_begin, piece.count));
  }
}

/// [held] of one kind; undefined where none of it is kept of the bucket.
at::Tensor state_of_kind(const BucketState& state, const StateLayout& layout,
                         const StateKind& kind) {
  const auto tensors = state_tensors(state.bucket->trains, state.bucket->unit, layout);
  const auto found = std::ranges::find(tensors, kind, &StateTensor::kind);
  if (found == tensors.end()) return at::Tensor();
  const auto index = static_cast<size_t>(found - tensors.begin());
  return index == 0 ? state.master : state.slots[index - 1];
}

}  // namespace

void ShardedState::initialise(uint64_t seed, const Locally& locally) {
  parts_.update.finish();
  locally([&] { parameters::draw_parameters(masters_of_shard(parts_.states), seed); });
  publish(Written::shard);
  parts_.update.restart();
}

void ShardedState::load_parameters(const sharding::TensorSource& source, const Locally& locally) {
  parts_.update.finish();
  locally([&] { parameters::load_parameters(masters_of_shard(parts_.states), source); });
  publish(Written::shard);
  parts_.update.restart();
}

// Other ranks' shards of parameters are gathered when they are needed, and so is what they hold of
// largest magnitudes.
void ShardedState::publish(Written written) {
  parts_.gatherer.invalidate();
  if (parts_.layout.parameter_buffers == Buffers::own) make_parameters(written);
  for (BucketState& state : parts_.states) find_amax(state);
}

void ShardedState::make_parameters(Written written) {
  const StateLayout& layout = parts_.layout;
  for (BucketState& state : parts_.states) {
    const bool holds_all = layout.holds_all || !state.bucket->trains;
    if (holds_all && written == Written::shard && parts_.dp.size() > 1) {
      parts_.dp.all_gather(state.master, state.shard_of(state.master));
    }
    if (!layout.own_masters || !state.bucket->trains) continue;
    state.bucket->data.narrow(0, state.held_begin, state.held_end - state.held_begin)
        .copy_(state.master);
  }
}

// Cut at the shards' borders also where this rank holds all of them (stage 0), so that it saves
// what it would save in stage 1.
void ShardedState::append_pieces(StateDict& dict, const StateKind& kind) const {
  const comm::Communicator& dp = parts_.dp;
  for (const BucketState& state : parts_.states) {
    if (!parts_.layout.is_in_state(state.bucket->trains)) continue;
    const at::Tensor held = state_of_kind(state, parts_.layout, kind);
    if (!held.defined()) continue;
    for (int owner = 0; owner < dp.size(); ++owner) {
      const auto [begin, end] = parts_.buckets.shard_range(*state.bucket, owner);
      if (begin < state.held_begin || end > state.held_end) continue;
      for (const BucketPiece& piece : pieces_of(*state.bucket, begin, end)) {
        dict.pieces.push_back(
            state_piece(piece, kind, owner == dp.rank(),
                        held.narrow(0, piece.bucket_begin - state.held_begin, piece.count)));
      }
    }
  }
}

StateDict ShardedState::state_dict() {
  parts_.update.finish();
  StateDict dict;
  append_pieces(dict, sharding::kMaster);
  for (const std::string& slot : parts_.layout.rule->all_slots()) append_pieces(dict, slot);
  return dict;
}

void ShardedState::call_before_update(std::function<void()> call) {
  parts_.update.call_before(std::move(call));
}

void ShardedState::state_loaded(int64_t updates_done) {
  if (updates_done < 0) {
    throw InternalError(problem(cat(updates_done, " updates done")).must("not be negative"));
  }
  parts_.update.finish();
  publish(Written::held);
  parts_.update.set_updates_done(updates_done);
}

int64_t ShardedState::updates_done() const { return parts_.update.updates_done(); }

void ShardedState::gather_parameters() {
  if (parts_.layout.parameter_buffers == Buffers::shared) {
    throw InternalError(problem("all parameters at once in ZeRO stage 3")
                            .must("be read block by block: memory holds no more than its slots"));
  }
  parts_.update.finish();
  const int blocks = static_cast<int>(parts_.buckets.blocks().size());
  for (int b = 0; b < blocks; ++b) parts_.gatherer.gather(b);
}

std::vector<ShardedState::SliceHash> ShardedState::hash_parameters() {
  parts_.update.finish();
  std::vector<SliceHash> hashes;
  std::vector<at::Tensor> values;  // on the device until all are queued
  const auto& blocks = parts_.buckets.blocks();
  for (int b = 0; b < static_cast<int>(blocks.size()); ++b) {
    parts_.gatherer.gather(b);
    for (const parameters::Parameter* parameter : blocks[b].parameters) {
      const at::Tensor flat = parameter->data.view({-1});
      for (const parameters::NamedSlice& slice : parameter->slices) {
        hashes.push_back(
            {.name = slice.spec.name, .begin = slice.spec.whole() ? -1 : slice.spec.begin});
        values.push_back(value_hash(flat.narrow(0, slice.offset, slice.spec.local_numel())));
      }
    }
  }
  if (values.empty()) return hashes;
  const at::Tensor on_host = at::stack(values).cpu();
  for (size_t i = 0; i < hashes.size(); ++i) {
    hashes[i].hash = static_cast<uint64_t>(on_host.const_data_ptr<int64_t>()[i]);
  }
  return hashes;
}

StateDict ShardedState::gradient_pieces() {
  if (!parts_.reducer.is_finished()) {
    throw InternalError(problem("gradient_pieces() was called before finish_reduction()")
                            .must("follow it: this rank's gradient is not yet the sum over dp"));
  }
  StateDict dict;
  for (const BucketState& state : parts_.states) {
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
