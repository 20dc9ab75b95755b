// A block's parameters, gathered over dp before they are used, the next blocks' meanwhile. Stages 1
// and 2: once after every update, each block where it stays. Stage 3: into slots that blocks share.
// Knows which block a home holds complete; nothing is gathered twice.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"

namespace tptrain::zero {

class Gathering {
 public:
  /// All must outlive it. before_reading(block) comes before its masters are read.
  Gathering(const ParamBuckets& buckets, std::vector<BucketState>& states,
            const StateLayout& layout, comm::Communicator& dp,
            std::function<void(int block)> before_reading);

  // Each is collective over dp where something is not there yet, and does nothing where ranks hold
  // all parameters anyway.

  /// The block, and what else it uses, is complete from here on in the current stream; the blocks
  /// behind it are on their way.
  void before_forward(int block);
  /// The same for backward, with the block before it on its way.
  void before_backward(int block);
  /// The block alone is complete from here on in the current stream.
  void need(int block);
  /// The masters change, or have changed: no home holds anything any more, and nothing is under way
  /// in the current stream.
  void forget();

 private:
  struct Home {
    int block = -1;  // what it holds, or will when the works are done
    std::vector<std::unique_ptr<comm::Work>> works;
  };
  Home& home(int block);
  void begin(int block);
  void begin_all_of(int block);
  void wait_for_all_of(int block);
  void prefetch(int block, int in_use);
  void start(int block);
  void wait(Home& home);
  bool uses(int block, int home) const;

  const ParamBuckets& buckets_;
  std::vector<std::vector<BucketState*>> of_block_;
  comm::Communicator& dp_;
  std::function<void(int)> before_reading_;
  bool active_;
  Homes homes_of_blocks_;
  int look_ahead_;
  std::vector<Home> homes_;
};

}  // namespace tptrain::zero
