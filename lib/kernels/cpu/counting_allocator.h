// What tensors take on the CPU: bytes alive and their peak, over all threads of the process. Beside
// torch's own allocator, which still makes the memory. Not counted: what libraries and std::vector
// take, and memory that comes from elsewhere (at::from_blob, shared memory of the collectives).
#pragma once

#include <c10/core/Allocator.h>

#include <atomic>
#include <cstdint>

namespace tptrain::kernels::cpu {

class CountingAllocator final : public c10::Allocator {
 public:
  /// Counts every CPU tensor allocated from here on; those that exist already are never seen.
  /// Before threads that allocate; calling it again changes nothing. It stays installed to the end
  /// of the process, as torch asks of an allocator.
  static CountingAllocator& install();

  int64_t live_bytes() const { return live_; }
  /// The most that was alive at once since install() or the last restart_peak().
  int64_t peak_bytes() const { return peak_; }
  /// The peak is what is alive now.
  void restart_peak() { peak_ = live_.load(); }

  c10::DataPtr allocate(size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, size_t bytes) const override;

 private:
  explicit CountingAllocator(c10::Allocator& torch_allocator) : torch_allocator_(torch_allocator) {}
  c10::Allocator& torch_allocator_;
  std::atomic<int64_t> live_ = 0;
  std::atomic<int64_t> peak_ = 0;
};

}  // namespace tptrain::kernels::cpu
