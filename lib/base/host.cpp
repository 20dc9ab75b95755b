#include "base/host.h"

#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>

#include "base/hex.h"
#include "base/memory_groups.h"

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

HostMemory available_host_memory() {
  HostMemory memory;
  std::ifstream meminfo("/proc/meminfo");
  std::string name;
  for (int64_t kib = 0; meminfo >> name >> kib;
       meminfo.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (name == "MemAvailable:") memory.available_bytes = kib * 1024;
  }
  std::ostringstream own;
  own << std::ifstream("/proc/self/cgroup").rdbuf();
  const int64_t left = bytes_left_in_groups(own.str(), "/sys/fs/cgroup");
  memory.limited = left < memory.available_bytes;
  memory.available_bytes = std::min(memory.available_bytes, left);
  return memory;
}

}  // namespace tptrain
