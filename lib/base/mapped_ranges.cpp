#include "base/mapped_ranges.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string_view>

namespace tptrain {

namespace {

struct Range {
  std::atomic<uintptr_t> begin{0};  // 0: free. Written last, so that a handler finds it whole.
  size_t bytes = 0;
  ExitCode code = ExitCode::data;
  std::array<char, 501> path = {};  // ends with a zero
};

// Static, because a signal handler can reach nothing else; untouched pages of it take no memory.
std::array<Range, 4096> ranges;
std::mutex writers;
struct sigaction former;

// Nothing here allocates or locks: the thread may have been anywhere.
class Line {
 public:
  void add(std::string_view text) {
    const size_t count = std::min(text.size(), bytes_.size() - used_);
    std::memcpy(bytes_.data() + used_, text.data(), count);
    used_ += count;
  }
  void add(size_t number) {
    std::array<char, 24> digits;
    const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), number);
    if (error == std::errc()) add({digits.data(), static_cast<size_t>(end - digits.data())});
  }
  void write_to_stderr() const {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, bytes_.data(), used_);
  }

 private:
  std::array<char, 1024> bytes_;
  size_t used_ = 0;
};

void on_bus_error(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Range& range : ranges) {
    const uintptr_t begin = range.begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address - begin >= range.bytes) continue;
    Line line;
    line.add(range.code == ExitCode::checkpoint ? "checkpoint error: " : "data error: ");
    line.add(range.path.data());
    line.add(": byte ");
    line.add(address - begin);
    line.add(" of ");
    line.add(range.bytes);
    line.add(
        " can no longer be read: the file was cut while it was in use, or its storage failed\n"
        "  Files in use must stay as they are: put it back whole and start again.\n");
    line.write_to_stderr();
    _exit(static_cast<int>(range.code));
  }
  sigaction(SIGBUS, &former, nullptr);    // the instruction is run again and meets this one
  if (info->si_code <= 0) raise(SIGBUS);  // but for one that another process sent
}

void install_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, &former);
}

}  // namespace

void add_mapped_range(const void* begin, size_t bytes, const char* path, ExitCode code) {
  const std::lock_guard lock(writers);
  static std::once_flag once;
  std::call_once(once, install_handler);
  const auto free = std::find_if(ranges.begin(), ranges.end(),
                                 [](const Range& range) { return range.begin.load() == 0; });
  if (free == ranges.end()) return;
  free->bytes = bytes;
  free->code = code;
  std::strncpy(free->path.data(), path, free->path.size() - 1);
  free->begin.store(reinterpret_cast<uintptr_t>(begin), std::memory_order_release);
}

void remove_mapped_range(const void* begin) {
  const std::lock_guard lock(writers);
  for (Range& range : ranges) {
    if (range.begin.load() != reinterpret_cast<uintptr_t>(begin)) continue;
    range.begin.store(0);
    return;
  }
}

void release_mapped(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace tptrain
