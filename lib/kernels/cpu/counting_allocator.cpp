#include "kernels/cpu/counting_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>

#include <new>

namespace tptrain::kernels::cpu {

namespace {

/// Stands before each tensor's memory. The memory itself is the context that its deleter is given:
/// oneDNN takes its scratch through raw_allocate, which asks for that.
struct alignas(c10::gAlignment) Header {
  std::atomic<int64_t>* live = nullptr;
  int64_t bytes = 0;
  c10::DeleterFnPtr release = nullptr;  // torch's own
};

void release(void* memory) {
  if (memory == nullptr) return;
  Header* header = static_cast<Header*>(memory) - 1;
  *header->live -= header->bytes;
  header->release(header);
}

}  // namespace

CountingAllocator& CountingAllocator::install() {
  // Never destroyed: tensors in other static objects may be freed after it would be.
  static CountingAllocator& allocator = []() -> CountingAllocator& {
    auto* made = new CountingAllocator(*c10::GetCPUAllocator());
    c10::SetCPUAllocator(made);
    return *made;
  }();
  return allocator;
}

c10::DataPtr CountingAllocator::allocate(size_t bytes) {
  const c10::Device device(c10::kCPU);
  if (bytes == 0) return {nullptr, nullptr, &release, device};  // as torch's own does
  auto* header = new (torch_allocator_.raw_allocate(sizeof(Header) + bytes))
      Header{.live = &live_,
             .bytes = static_cast<int64_t>(bytes),
             .release = torch_allocator_.raw_deleter()};
  const int64_t now = live_ += header->bytes;
  int64_t highest = peak_;
  while (now > highest && !peak_.compare_exchange_weak(highest, now)) {
  }
  void* memory = header + 1;
  return {memory, memory, &release, device};
}

c10::DeleterFnPtr CountingAllocator::raw_deleter() const { return &release; }

void CountingAllocator::copy_data(void* to, const void* from, size_t bytes) const {
  default_copy_data(to, from, bytes);
}

}  // namespace tptrain::kernels::cpu
