// A block's parameters, gathered over dp before they are used, the next blocks' meanwhile. Stages 1
// and 2: once after every update, each block where it stays. Stage 3: into slots that blocks share.
// Knows which block a buffer holds complete; nothing is gathered twice.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/fp8_shards.h"

namespace tptrain::zero {

class Gatherer {
 public:
  /// All must outlive it. `table`: block 0's, which can come later than the rest of it; null: none
  /// can. before_reading(block) comes before its masters are read.
  Gatherer(const ParamBuckets& buckets, std::vector<BucketState>& states, const StateLayout& layout,
           comm::Communicator& tp, comm::Communicator& dp, const parameters::Parameter* table,
           std::function<void(int block)> before_reading);

  // Each is collective over dp where something is not there yet (over tp as well, where it is to be
  // FP8), and does nothing where ranks hold all parameters anyway.

  /// The block, and what else it uses, is complete from here on in the current stream; the blocks
  /// behind it are in flight. later: but for the table, which follows when the first blocks are
  /// through, unless it is there already; and for the blocks behind it, which prefetch_behind()
  /// starts when what is looked up instead has gone before them.
  enum class Table { now, later };
  void before_forward(int block, Table table = Table::now);
  void prefetch_behind(int block);
  /// The same for backward, with the block before it in flight.
  void before_backward(int block);
  /// The block alone is complete from here on in the current stream, in the compute dtype whatever
  /// its products read. Collective over dp.
  void gather(int block);
  /// The masters change, or have changed: no buffer holds anything any more, and nothing is in
  /// flight.
  void invalidate();

  /// The table is there or in flight, or ranks do not gather it by itself.
  bool holds_table() const { return table_ == nullptr || table_buffer_.block == 0; }

 private:
  struct Buffer {
    int block = -1;  // what it holds, or will when they are done
    std::vector<std::unique_ptr<comm::Work>> in_flight;
    std::vector<BucketState*> amax_in_flight;
  };
  Buffer& buffer(int block);
  void start(int block);
  void start_without_table(int block);
  void start_table();
  void start_all_of(int block);
  void start_gather(BucketState& state, Buffer& buffer);
  void start_amax(int block, Buffer& buffer);
  void start_gather_of_values(BucketState& state, Buffer& buffer);
  void prefetch(int block, int in_use);
  void wait(Buffer& buffer);
  void wait_for(int block);
  void wait_for_all_of(int block);
  bool uses(int block, int buffer) const;

  const ParamBuckets& buckets_;
  std::vector<std::vector<BucketState*>> of_block_;
  /// Whether largest magnitudes have been gathered since the masters changed, by block.
  std::vector<bool> has_amax_;
  comm::Communicator& dp_;
  std::function<void(int)> before_reading_;
  bool active_;
  Buffers buffers_of_blocks_;
  int look_ahead_;
  int first_training_;  // block: backward ends with it
  std::vector<Buffer> buffers_;
  Fp8Shards fp8_;
  BucketState* table_ = nullptr;
  Buffer table_buffer_;
};

}  // namespace tptrain::zero
