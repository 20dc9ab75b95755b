// Device memory that every rank of an axis opens to the others of its host (CUDA IPC). Internal to
// comm.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/control.h"

namespace tptrain::comm {

/// Throws CommError, saying how to do without direct copies.
void check_peer_call(cudaError_t code, const char* call, const std::string& where);

/// Flags, then slots of equal size, in the memory of each rank.
class SharedBlock {
 public:
  static constexpr int64_t kFlagBytes = 8192;

  /// Collective. Throws agreed on every rank. The slots' memory is zeroed.
  SharedBlock(ControlGroup& group, const std::string& axis, int64_t slot_bytes, int slots);
  SharedBlock(const SharedBlock&) = delete;
  SharedBlock& operator=(const SharedBlock&) = delete;
  ~SharedBlock();

  /// Lets go of the others' memory. All ranks do so before any frees its own.
  void close();
  /// All memory, own and others', is left to the end of the process: somebody may be at work on it.
  void abandon() {
    own_ = nullptr;
    base_.clear();
  }

  /// Whole pages of the device: a handle stands for these and nothing else.
  int64_t bytes() const {
    constexpr int64_t kPage = int64_t{1} << 21;
    return (kFlagBytes + slot_bytes_ * slots_ + kPage - 1) / kPage * kPage;
  }
  int64_t slot_bytes() const { return slot_bytes_; }
  char* slot(int owner, int slot) const {
    return static_cast<char*>(base_[owner]) + kFlagBytes + slot * slot_bytes_;
  }
  /// In `owner`'s memory: rank `writer` has filled its part of the slot.
  uint32_t* full(int owner, int slot, int writer) const {
    return flag(base_[owner], slot, Flag::full, writer);
  }
  /// In `owner`'s memory: rank `reader` lets it write into the reader's slot.
  uint32_t* empty(int owner, int slot, int reader) const {
    return flag(base_[owner], slot, Flag::empty, reader);
  }
  /// In `stream`: every flag in this rank's own memory says go, whether or not it was raised. Frees
  /// whoever waits for one; the block is of no use after that.
  void raise_own_flags(cudaStream_t stream, const std::string& axis);
  /// The next slot in turn. The same on every rank, as the calls are.
  int take() {
    const int slot = next_;
    next_ = (next_ + 1) % slots_;
    return slot;
  }

 private:
  SharedBlock(int rank, int ranks, int64_t slot_bytes, int slots);

  enum class Flag { empty, full };
  uint32_t* flag(void* base, int slot, Flag kind, int rank) const {
    const int64_t index = (kind == Flag::full ? slots_ * ranks_ : 0) + slot * ranks_ + rank;
    return static_cast<uint32_t*>(base) + index;
  }

  int rank_;
  int64_t ranks_;
  int64_t slot_bytes_;
  int slots_;
  int next_ = 0;
  void* own_ = nullptr;
  std::vector<void*> base_;
};

}  // namespace tptrain::comm
