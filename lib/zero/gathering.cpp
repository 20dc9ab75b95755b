// Host-side bookkeeping of the homes and the collectives behind it. The order of calls is the same
// on every rank, so the decisions are too.
#include "zero/gathering.h"

#include <algorithm>
#include <utility>

namespace tptrain::zero {
namespace {

// Blocks gathered ahead of the one in use. Where each has its own memory two keep the link busy
// also while a short block computes (the embedding) or a long one comes (the head). More would put
// collectives of tp behind a longer queue: NCCL launches those of one device in the hosts' order.
constexpr int kAheadOfOwnHome = 2;
// Slots hold the block in use and one other.
constexpr int kAheadOfSlot = 1;
// Before the table that their look-up did without: none of them waits behind it.
constexpr int kBlocksBeforeTable = 2;

}  // namespace

Gathering::Gathering(const ParamBuckets& buckets, std::vector<BucketState>& states,
                     const StateLayout& layout, comm::Communicator& dp,
                     const sharding::Parameter* table, std::function<void(int)> before_reading)
    : buckets_(buckets),
      of_block_(buckets.blocks().size()),
      dp_(dp),
      before_reading_(std::move(before_reading)),
      active_(layout.gathers_parameters),
      homes_of_blocks_(layout.parameter_homes),
      look_ahead_(layout.parameter_homes == Homes::own ? kAheadOfOwnHome : kAheadOfSlot),
      homes_(home_count(buckets.blocks(), layout.parameter_homes)) {
  for (BucketState& state : states) {
    // What does not train is where it was loaded to, unless others take its memory in turn.
    if (!state.bucket->trains && homes_of_blocks_ == Homes::own) continue;
    const bool by_itself = active_ && homes_of_blocks_ == Homes::own && table != nullptr &&
                           state.bucket->parameters[0] == table;
    if (by_itself) {
      table_ = &state;
    } else {
      of_block_[state.bucket->block].push_back(&state);
    }
  }
}

void Gathering::before_forward(int block, Table table) {
  if (!active_) return;
  if (block == 0 && table == Table::later && !holds_table()) {
    begin_rest(0);
    wait(home(0));
    return;
  }
  begin_all_of(block);
  run_ahead(block);
  if (block >= kBlocksBeforeTable) start_table();
  wait_for_all_of(block);
}

void Gathering::run_ahead(int block) {
  if (!active_) return;
  const int last = static_cast<int>(buckets_.blocks().size()) - 1;
  const int end = std::min(block + look_ahead_, last);
  for (int next = block + 1; next <= end; ++next) prefetch(next, block);
}

void Gathering::before_backward(int block) {
  if (!active_) return;
  const auto& blocks = buckets_.blocks();
  const bool reads = blocks[block].backward_reads_data;
  if (reads) begin_all_of(block);
  if (block > 0 && blocks[block - 1].backward_reads_data) prefetch(block - 1, block);
  if (reads) wait_for_all_of(block);
}

void Gathering::need(int block) {
  if (!active_) return;
  begin(block);
  wait_for(block);
}

void Gathering::forget() {
  for (Home& home : homes_) {
    wait(home);  // a gather under way still reads the masters
    home.block = -1;
  }
  wait(table_home_);
  table_home_.block = -1;
}

Gathering::Home& Gathering::home(int block) {
  return homes_[home_of(buckets_.blocks(), block, homes_of_blocks_)];
}

void Gathering::begin(int block) {
  begin_rest(block);
  if (block == 0) start_table();
}

// All but the table.
void Gathering::begin_rest(int block) {
  if (home(block).block != block) start(block);
}

void Gathering::begin_all_of(int block) {
  const int other = buckets_.blocks()[block].also_uses;
  if (other >= 0) begin(other);
  begin(block);
}

void Gathering::wait_for_all_of(int block) {
  const int other = buckets_.blocks()[block].also_uses;
  if (other >= 0) wait_for(other);
  wait_for(block);
}

void Gathering::wait_for(int block) {
  wait(home(block));
  if (block == 0) wait(table_home_);
}

// Not where it would take the memory of what is in use.
void Gathering::prefetch(int block, int in_use) {
  if (uses(in_use, home_of(buckets_.blocks(), block, homes_of_blocks_))) return;
  begin(block);
}

bool Gathering::uses(int block, int home) const {
  const auto& blocks = buckets_.blocks();
  if (home_of(blocks, block, homes_of_blocks_) == home) return true;
  const int other = blocks[block].also_uses;
  return other >= 0 && home_of(blocks, other, homes_of_blocks_) == home;
}

// The home's former block has done its work in the current stream, and the gather begins behind it.
void Gathering::start(int block) {
  Home& target = home(block);
  wait(target);
  target.block = block;
  before_reading_(block);
  for (BucketState* state : of_block_[block]) gather(*state, target);
}

void Gathering::start_table() {
  if (holds_table()) return;
  table_home_.block = 0;
  before_reading_(0);
  gather(*table_, table_home_);
}

void Gathering::gather(BucketState& state, Home& target) {
  at::Tensor& data = state.bucket->data;
  if (dp_.size() == 1) {
    data.copy_(state.master);
    return;
  }
  if (state.master.scalar_type() == data.scalar_type()) {
    target.works.push_back(dp_.start_all_gather(data, state.master));
    return;
  }
  // Masters rounded to the compute dtype: into memory of its own the update has done that.
  if (homes_of_blocks_ == Homes::shared) state.data_shard.copy_(state.master);
  target.works.push_back(dp_.start_all_gather(data, state.data_shard));
}

void Gathering::wait(Home& home) {
  for (const auto& work : home.works) work->wait();
  home.works.clear();
}

}  // namespace tptrain::zero
