#include "base/host.h"

#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <string_view>

#include "base/hex.h"

namespace tptrain {

namespace {

// The notes of one loaded segment, each a header, a name and a description, padded to four bytes.
std::string build_id_in(const char* note, size_t bytes) {
  const auto padded = [](size_t length) { return (length + 3) & ~size_t{3}; };
  while (bytes >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, note, sizeof header);
    const size_t whole = sizeof header + padded(header.n_namesz) + padded(header.n_descsz);
    if (whole > bytes) break;
    const char* name = note + sizeof header;
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 && !std::memcmp(name, "GNU", 4)) {
      return to_hex(std::string_view(name + 4, header.n_descsz));
    }
    note += whole;
    bytes -= whole;
  }
  return {};
}

// The first object that the loader lists is the program itself.
int find_build_id(dl_phdr_info* program, size_t, void* result) {
  for (int i = 0; i < program->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = program->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const std::string id = build_id_in(
        reinterpret_cast<const char*>(program->dlpi_addr + segment.p_vaddr), segment.p_memsz);
    if (!id.empty()) *static_cast<std::string*>(result) = id;
  }
  return 1;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

std::string program_build_id() {
  std::string id;
  dl_iterate_phdr(find_build_id, &id);
  return id;
}

int64_t available_host_memory_bytes() {
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  int64_t available = kNoLimit;
  std::ifstream meminfo("/proc/meminfo");
  std::string name;
  for (int64_t kib = 0; meminfo >> name >> kib; meminfo.ignore(kNoLimit, '\n')) {
    if (name == "MemAvailable:") available = kib * 1024;
  }
  // "max" where there is no limit, which is no number.
  int64_t limit = 0;
  int64_t used = 0;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max");
  std::ifstream used_file("/sys/fs/cgroup/memory.current");
  if (limit_file >> limit && used_file >> used) {
    int64_t cached = 0;  // files' pages, which give way
    std::ifstream stat("/sys/fs/cgroup/memory.stat");
    for (int64_t bytes = 0; stat >> name >> bytes;) {
      if (name == "inactive_file" || name == "active_file") cached += bytes;
    }
    available = std::min(available, std::max<int64_t>(limit - used + cached, 0));
  }
  return available;
}

}  // namespace tptrain
