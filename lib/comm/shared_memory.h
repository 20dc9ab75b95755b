// Collectives between the processes of one host through a segment of memory that all of them map:
// two copies and one reduction instead of messages, and a barrier that sleeps, so that a waiting
// rank leaves its core to the one it waits for. Raw memory, no torch, no MPI; internal to comm.
//
// Each rank has two slots in the segment. A collective goes in rounds of at most a slot;
// consecutive rounds take turns between the slots, so a slot is written again only after a barrier
// that every reader of its old content has passed:
//
//   all_reduce, small   all write their tensor | barrier | each reduces everything itself
//   all_reduce, large   all write the parts of others | barrier | each reduces its part and writes
//   it | barrier | all read the parts of others reduce_scatter      all write the pieces of others
//   | barrier | each reduces its piece all_gather          all write their piece | barrier | all
//   read the pieces of others broadcast           root writes | barrier | others read
//   all_to_all          all write their parts for others | barrier | all read the parts for them
//
// Sums run in rank order wherever they are computed: every rank, and every identical run, gets the
// same bits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "comm/control.h"
#include "comm/host_segment.h"
#include "comm/reduce.h"

namespace tptrain::comm {

/// Whoever waits: looks a while before it sleeps, or leaves its core early to the one it waits for.
enum class Waiting { on_own_core, on_shared_core };

struct SharedMemoryOptions {
  int64_t slot_bytes = int64_t{1} << 19;
  Waiting waiting = Waiting::on_own_core;
};

class SharedMemory {
 public:
  /// Maps one segment into every rank of the group. Collective. Returns null on every rank, with
  /// the reason in `why_not`, where some rank cannot reach it: ranks on several hosts, or no room
  /// in /dev/shm.
  static std::unique_ptr<SharedMemory> create(ControlGroup& group, std::string name,
                                              const SharedMemoryOptions& options,
                                              std::string* why_not);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Collective, blocking; counts in elements, as in communicator.h. Throw CommError on every rank
  // where the ranks do not call the same.
  void all_reduce(void* data, int64_t count, Element element, ReduceOp op);
  void reduce_scatter(void* output, const void* input, int64_t output_count, Element element,
                      ReduceOp op);
  void all_gather(void* output, const void* input, int64_t input_bytes);
  void broadcast(void* data, int64_t bytes, int root);
  /// counts: [size * size] elements of `width` bytes.
  void all_to_all(void* output, const void* input, std::span<const int64_t> counts, int64_t width);
  void barrier();

 private:
  struct Header;
  struct Call;
  SharedMemory(std::unique_ptr<HostSegment> segment, int64_t slot_bytes, ControlGroup& group,
               std::string name, int spins);

  char* slot(int rank) const;
  Call& call(int rank) const;
  void begin(const Call& own);
  void first_barrier();
  void check_same_call();
  void wait_for_all();
  void next_round() { turn_ ^= 1; }
  void all_reduce_small(char* data, int64_t count, Element element, ReduceOp op);
  void all_reduce_round(char* data, int64_t count, Element element, ReduceOp op);

  std::unique_ptr<HostSegment> memory_;
  char* segment_;
  int64_t segment_bytes_;
  int64_t slot_bytes_;
  int rank_;
  int size_;
  std::string name_;
  int spins_;
  int turn_ = 0;            // which of the two slots this round uses
  bool unchecked_ = false;  // the call of this collective is not compared yet
};

}  // namespace tptrain::comm
