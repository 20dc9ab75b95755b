// A block of host memory that a GPU copies into at the link's speed: page-locked where the build
// and `device` are CUDA, ordinary pages elsewhere. Two implementations, as for every such thing:
// host_memory_cuda.cpp and host_memory_absent.cpp hold what differs.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>

namespace tptrain::zero {

class HostMemory {
 public:
  /// Pages of the CPU's cost nothing before they are written, or taken. Throws Error of
  /// ExitCode::config where there is no such memory to be had.
  HostMemory(int64_t bytes, c10::Device device);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  std::byte* data() const { return data_; }
  /// Has the kernel give all pages now: it zeroes each, which takes longer than a copy into pages
  /// that are there.
  void take_pages();

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool locked_ = false;
};

/// Whether it locked the pages.
bool lock_pages(void* data, size_t size, c10::Device device);
void unlock_pages(void* data);

}  // namespace tptrain::zero
