#include "comm/host_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/random_id.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

std::string errno_text(std::string_view call) { return cat(call, ": ", std::strerror(errno)); }

// A mapping of the POSIX shared memory object `name`; error says why there is none.
struct Mapping {
  void* address = nullptr;
  std::string error = {};
};

Mapping map_segment(const std::string& name, int64_t bytes, int open_flags) {
  const int descriptor = shm_open(name.c_str(), O_RDWR | O_CLOEXEC | open_flags, 0600);
  if (descriptor < 0) return {nullptr, errno_text(cat("shm_open of ", name))};
  Mapping mapping;
  // Reserved now: a full /dev/shm is an error code here, and a bus error at the first write
  // otherwise.
  const int failed = (open_flags & O_CREAT) ? posix_fallocate(descriptor, 0, bytes) : 0;
  if (failed != 0) {
    errno = failed;
    mapping.error = errno_text(cat("reserving ", human_bytes(bytes), " in /dev/shm"));
  } else {
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) {
      mapping.error = errno_text(cat("mmap of ", human_bytes(bytes)));
    } else {
      mapping.address = address;
    }
  }
  close(descriptor);
  return mapping;
}

}  // namespace

std::unique_ptr<HostSegment> HostSegment::create(ControlGroup& group, int64_t bytes,
                                                 const std::function<void(void*)>& fill,
                                                 std::string* why_not) {
  Mapping mapping;
  // A name that no other job, and no host but this one, knows.
  std::string name = group.rank() == 0 ? cat("/tptrain-", random_id()) : std::string();
  if (group.rank() == 0) {
    mapping = map_segment(name, bytes, O_CREAT | O_EXCL);
    if (mapping.address != nullptr) fill(mapping.address);
  }
  name = group.broadcast(name, 0);
  if (group.rank() != 0) mapping = map_segment(name, bytes, 0);
  const std::vector<std::string> errors = group.all_gather(mapping.error);
  // Mapped everywhere it is going to be: without a name it cannot outlive the processes.
  if (group.rank() == 0) shm_unlink(name.c_str());

  for (size_t r = 0; r < errors.size(); ++r) {
    if (errors[r].empty()) continue;
    if (mapping.address != nullptr) munmap(mapping.address, bytes);
    *why_not = cat("rank ", r, ": ", errors[r]);
    return nullptr;
  }
  return std::unique_ptr<HostSegment>(new HostSegment(mapping.address, bytes));
}

HostSegment::~HostSegment() { munmap(memory_, bytes_); }

}  // namespace tptrain::comm
