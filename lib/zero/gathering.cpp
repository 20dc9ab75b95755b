// Host-side bookkeeping of the slots and the collectives behind it. The order of calls is the same
// on every rank, so the decisions are too.
#include "zero/gathering.h"

#include "zero/layout.h"

namespace tptrain::zero {

Gathering::Gathering(const ParamBuckets& buckets, std::vector<BucketState>& states,
                     comm::Communicator& dp)
    : buckets_(buckets), of_block_(buckets.blocks().size()), dp_(dp), slots_(kSlots) {
  for (BucketState& state : states) of_block_[state.bucket->block].push_back(&state);
}

void Gathering::need(int block) {
  Slot& slot = slots_[slot_of(buckets_.blocks(), block)];
  if (slot.block != block) start(block);
  wait(slot);
}

void Gathering::prefetch(int block, int in_use) {
  const int index = slot_of(buckets_.blocks(), block);
  if (slots_[index].block == block || uses(in_use, index)) return;
  start(block);
}

void Gathering::forget() {
  for (Slot& slot : slots_) {
    wait(slot);  // a gather under way still reads the masters
    slot.block = -1;
  }
}

bool Gathering::uses(int block, int slot) const {
  const auto& blocks = buckets_.blocks();
  if (slot_of(blocks, block) == slot) return true;
  const int other = blocks[block].also_uses;
  return other >= 0 && slot_of(blocks, other) == slot;
}

// The slot's former block has done its work in the current stream, and the gather begins behind it.
void Gathering::start(int block) {
  Slot& slot = slots_[slot_of(buckets_.blocks(), block)];
  wait(slot);
  slot.block = block;
  for (BucketState* state : of_block_[block]) {
    at::Tensor& data = state->bucket->data;
    if (dp_.size() == 1) {
      data.copy_(state->master);
      continue;
    }
    if (state->master.scalar_type() == data.scalar_type()) {
      slot.works.push_back(dp_.start_all_gather(data, state->master));
      continue;
    }
    state->data_shard.copy_(state->master);  // rounded to the compute dtype
    slot.works.push_back(dp_.start_all_gather(data, state->data_shard));
  }
}

void Gathering::wait(Slot& slot) {
  for (const auto& work : slot.works) work->wait();
  slot.works.clear();
}

}  // namespace tptrain::zero
