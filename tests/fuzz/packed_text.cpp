// Fuzzes the reader of files that gzip or zstd may have packed: whatever the bytes, the file is
// refused with a DataError or read in rows of a bounded length, and unpacks to no more than is
// allowed.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "data/file_reader.h"

namespace {

constexpr int64_t kLongestRow = 1000;
constexpr int64_t kAlwaysUnpacked = int64_t{64} << 20;

/// The bytes as a file, which has a name as long as this lives.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(::memfd_create("fuzz", 0)) {
    if (descriptor_ < 0 || ::write(descriptor_, data, size) != static_cast<ssize_t>(size))
      std::abort();
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::data;
  const MemoryFile file(data, size);
  try {
    FileReader reader(file.path());
    int64_t bytes = 0;
    for (std::string_view piece = reader.next(); !piece.empty(); piece = reader.next())
      bytes += static_cast<int64_t>(piece.size());
    const int64_t most =
        std::max(kAlwaysUnpacked, FileReader::kMostUnpacked * static_cast<int64_t>(size + 1));
    if (bytes > most + (int64_t{1} << 20)) std::abort();
  } catch (const tptrain::DataError&) {
    // A refusal is one of the right answers.
  }
  try {
    LineReader rows(file.path(), kLongestRow);
    while (true) {
      try {
        const auto row = rows.next();
        if (!row) break;
        if (static_cast<int64_t>(row->size()) > kLongestRow) std::abort();
      } catch (const BadRow&) {
        // One that is too long: the next one follows.
      }
    }
  } catch (const tptrain::DataError&) {
  }
  return 0;
}
