// Stage 3: a block's parameters, gathered over dp into its slot before they are used, the next
// block's meanwhile. Knows which block a slot holds; nothing is gathered twice.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"

namespace tptrain::zero {

class Gathering {
 public:
  /// Both must outlive it.
  Gathering(const ParamBuckets& buckets, std::vector<BucketState>& states, comm::Communicator& dp);

  /// The parameters of the block are in its slot from here on in the current stream. Collective
  /// over dp unless they are there already.
  void need(int block);
  /// Begins to gather the block into its slot, unless it is there, or the slot holds what `in_use`
  /// works with. Collective over dp likewise.
  void prefetch(int block, int in_use);
  /// The masters are about to change: no slot holds anything any more.
  void forget();

 private:
  struct Slot {
    int block = -1;  // what it holds, or will when the works are done
    std::vector<std::unique_ptr<comm::Work>> works;
  };
  void start(int block);
  void wait(Slot& slot);
  bool uses(int block, int slot) const;

  const ParamBuckets& buckets_;
  std::vector<std::vector<BucketState*>> of_block_;
  comm::Communicator& dp_;
  std::vector<Slot> slots_;
};

}  // namespace tptrain::zero
