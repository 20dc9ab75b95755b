#include "zero/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::zero {

HostMemory::HostMemory(int64_t bytes, c10::Device device) : size_(static_cast<size_t>(bytes)) {
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw ConfigError(problem(cat("no ", human_bytes(bytes), " of host memory for a copy of the ",
                                  "state: ", std::generic_category().message(errno)))
                          .remedy("Set checkpoint.async to false."));
  }
  data_ = static_cast<std::byte*>(data);
  ::madvise(data, size_, MADV_HUGEPAGE);  // advice: fewer faults, and fewer pages to lock
  locked_ = lock_pages(data, size_, device);
}

void HostMemory::take_pages() {
  constexpr size_t kAtOnce = size_t{16} << 20;
  constexpr size_t kPage = 4096;
  for (size_t begin = 0; begin < size_; begin += kAtOnce) {
    const size_t end = std::min(size_, begin + kAtOnce);
#ifdef MADV_POPULATE_WRITE
    if (::madvise(data_ + begin, end - begin, MADV_POPULATE_WRITE) == 0) continue;
#endif
    for (size_t at = begin; at < end; at += kPage)  // a kernel before 5.14
      static_cast<volatile std::byte*>(data_)[at] = std::byte{0};
  }
}

HostMemory::~HostMemory() {
  if (data_ == nullptr) return;
  if (locked_) unlock_pages(data_);
  ::munmap(data_, size_);
}

}  // namespace tptrain::zero
