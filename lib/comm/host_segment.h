// Memory that the ranks of a host share, without a name in /dev/shm once all have it: nothing
// outlives the processes. Internal to comm.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "comm/control.h"

namespace tptrain::comm {

class HostSegment {
 public:
  /// Maps one segment of zeroed memory into every rank of the group; rank 0 calls `fill` on it
  /// before the others have it. Collective. Returns null on every rank, with the reason in
  /// `why_not`, where some rank cannot reach it: ranks on several hosts, or no room in /dev/shm.
  static std::unique_ptr<HostSegment> create(ControlGroup& group, int64_t bytes,
                                             const std::function<void(void*)>& fill,
                                             std::string* why_not);
  ~HostSegment();
  HostSegment(const HostSegment&) = delete;
  HostSegment& operator=(const HostSegment&) = delete;

  void* memory() const { return memory_; }
  int64_t bytes() const { return bytes_; }

 private:
  HostSegment(void* memory, int64_t bytes) : memory_(memory), bytes_(bytes) {}

  void* memory_;
  int64_t bytes_;
};

}  // namespace tptrain::comm
