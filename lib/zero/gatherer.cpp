// Host-side bookkeeping of the buffers and the collectives behind it. The order of calls is the
// same on every rank, so the decisions are too.
#include "zero/gatherer.h"

#include <ATen/ops/amax.h>

#include <algorithm>
#include <utility>

namespace tptrain::zero {
namespace {

// Blocks gathered ahead of the one in use. Where each has its own memory two keep the link busy
// also while a short block computes (the embedding) or a long one comes (the head). More would put
// collectives of tp behind a longer queue: NCCL launches those of one device in the hosts' order.
constexpr int kAheadOfOwnBuffer = 2;
// Slots hold the block in use and one other.
constexpr int kAheadOfSlot = 1;
// Before the table that their look-up did without: none of them waits behind it.
constexpr int kBlocksBeforeTable = 2;

int first_training_block(const std::vector<BucketState>& states, size_t blocks) {
  auto first = static_cast<int>(blocks);
  for (const BucketState& state : states) {
    if (state.bucket->trains) first = std::min(first, state.bucket->block);
  }
  return first;
}

}  // namespace

Gatherer::Gatherer(const ParamBuckets& buckets, std::vector<BucketState>& states,
                   const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp,
                   const parameters::Parameter* table, std::function<void(int)> before_reading)
    : buckets_(buckets),
      of_block_(buckets.blocks().size()),
      has_amax_(buckets.blocks().size(), false),
      dp_(dp),
      before_reading_(std::move(before_reading)),
      active_(layout.gathers_parameters),
      buffers_of_blocks_(layout.parameter_buffers),
      look_ahead_(layout.parameter_buffers == Buffers::own ? kAheadOfOwnBuffer : kAheadOfSlot),
      first_training_(first_training_block(states, buckets.blocks().size())),
      buffers_(buffer_count(buckets.blocks(), layout.parameter_buffers)),
      fp8_(states, layout, tp, dp) {
  for (BucketState& state : states) {
    // What does not train is where it was loaded to, unless others take its memory in turn.
    if (!state.bucket->trains && buffers_of_blocks_ == Buffers::own) continue;
    const bool by_itself = active_ && buffers_of_blocks_ == Buffers::own && table != nullptr &&
                           state.bucket->parameters[0] == table;
    if (by_itself) {
      table_ = &state;
    } else {
      of_block_[state.bucket->block].push_back(&state);
    }
  }
}

void Gatherer::before_forward(int block, Table table) {
  if (!active_) return;
  if (block == 0 && table == Table::later && !holds_table()) {
    start_without_table(0);
    wait(buffer(0));
    return;
  }
  start_all_of(block);
  prefetch_behind(block);
  if (block >= kBlocksBeforeTable) start_table();
  wait_for_all_of(block);
}

void Gatherer::prefetch_behind(int block) {
  if (!active_) return;
  const int last = static_cast<int>(buckets_.blocks().size()) - 1;
  const int end = std::min(block + look_ahead_, last);
  for (int next = block + 1; next <= end; ++next) prefetch(next, block);
}

void Gatherer::before_backward(int block) {
  if (!active_) return;
  const auto& blocks = buckets_.blocks();
  const bool reads = blocks[block].backward_reads_data;
  if (reads) start_all_of(block);
  if (block > first_training_ && blocks[block - 1].backward_reads_data) prefetch(block - 1, block);
  if (reads) wait_for_all_of(block);
}

void Gatherer::gather(int block) {
  if (!active_) return;
  if (fp8_.empty()) {
    start(block);
    wait_for(block);
    return;
  }
  Buffer& target = buffer(block);
  wait(target);
  target.block = -1;  // of values, which no product reads
  before_reading_(block);
  for (BucketState* state : of_block_[block]) start_gather_of_values(*state, target);
  wait(target);
}

void Gatherer::invalidate() {
  for (Buffer& buffer : buffers_) {
    wait(buffer);  // a gather in flight still reads the masters
    buffer.block = -1;
  }
  wait(table_buffer_);
  table_buffer_.block = -1;
  std::fill(has_amax_.begin(), has_amax_.end(), false);
  fp8_.invalidate();
}

Gatherer::Buffer& Gatherer::buffer(int block) {
  return buffers_[buffer_of(buckets_.blocks(), block, buffers_of_blocks_)];
}

void Gatherer::start(int block) {
  start_without_table(block);
  if (block == 0) start_table();
}

// The buffer's former block has done its work in the current stream, and the gather begins behind
// it.
void Gatherer::start_without_table(int block) {
  Buffer& target = buffer(block);
  if (target.block == block) return;
  wait(target);
  target.block = block;
  before_reading_(block);
  start_amax(block, target);
  for (BucketState* state : of_block_[block]) start_gather(*state, target);
}

// Before the parameters, whose casts wait for it. A few words, as the bits of fp32: nothing adds
// them.
void Gatherer::start_amax(int block, Buffer& target) {
  if (has_amax_[block]) return;
  has_amax_[block] = true;
  for (BucketState* state : of_block_[block]) {
    if (!state->gathered_amax.defined()) continue;
    at::Tensor all = state->gathered_amax.view(at::kFloat);
    target.in_flight.push_back(dp_.start_all_gather(all, state->held_amax.view(at::kFloat)));
    target.amax_in_flight.push_back(state);
  }
}

void Gatherer::start_table() {
  if (holds_table()) return;
  table_buffer_.block = 0;
  before_reading_(0);
  start_gather(*table_, table_buffer_);
}

void Gatherer::start_all_of(int block) {
  const int other = buckets_.blocks()[block].also_uses;
  if (other >= 0) start(other);
  start(block);
}

void Gatherer::start_gather(BucketState& state, Buffer& target) {
  if (!fp8_.takes(state)) return start_gather_of_values(state, target);
  target.in_flight.push_back(fp8_.start_gather(state));
}

void Gatherer::start_gather_of_values(BucketState& state, Buffer& target) {
  at::Tensor& data = state.bucket->data;
  if (dp_.size() == 1) {
    data.copy_(state.master);
    return;
  }
  if (state.master.scalar_type() == data.scalar_type()) {
    target.in_flight.push_back(dp_.start_all_gather(data, state.master));
    return;
  }
  // Masters rounded to the compute dtype: into memory of its own the update has done that.
  if (buffers_of_blocks_ == Buffers::shared) state.data_shard.copy_(state.master);
  target.in_flight.push_back(dp_.start_all_gather(data, state.data_shard));
}

// Not where it would take the memory of what is in use.
void Gatherer::prefetch(int block, int in_use) {
  if (uses(in_use, buffer_of(buckets_.blocks(), block, buffers_of_blocks_))) return;
  start(block);
}

bool Gatherer::uses(int block, int buffer) const {
  const auto& blocks = buckets_.blocks();
  if (buffer_of(blocks, block, buffers_of_blocks_) == buffer) return true;
  const int other = blocks[block].also_uses;
  return other >= 0 && buffer_of(blocks, other, buffers_of_blocks_) == buffer;
}

void Gatherer::wait(Buffer& buffer) {
  for (const auto& work : buffer.in_flight) work->wait();
  buffer.in_flight.clear();
  for (BucketState* state : buffer.amax_in_flight)
    at::amax_out(state->amax, state->gathered_amax, /*dim=*/{0});
  buffer.amax_in_flight.clear();
}

void Gatherer::wait_for(int block) {
  wait(buffer(block));
  if (block == 0) wait(table_buffer_);
}

void Gatherer::wait_for_all_of(int block) {
  const int other = buckets_.blocks()[block].also_uses;
  if (other >= 0) wait_for(other);
  wait_for(block);
}

}  // namespace tptrain::zero
