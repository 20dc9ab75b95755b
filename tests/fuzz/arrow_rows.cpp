// Fuzzes the rows of Parquet and Arrow files, metadata and pages: whatever the bytes, the file is
// refused with a DataError or gives rows of a bounded length. Built where Arrow is.
#include "data/arrow_rows.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "data/jsonl_rows.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::data;
  const int descriptor = ::memfd_create("fuzz", 0);
  if (descriptor < 0 || ::write(descriptor, data, size) != static_cast<ssize_t>(size)) std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const RowLayout layout = size > 0 && data[0] == 'P'   ? RowLayout::parquet
                           : size > 0 && data[0] == 'A' ? RowLayout::arrow_file
                                                        : RowLayout::arrow_stream;
  try {
    const auto rows = open_arrow_rows(path, layout);
    // A page of a few bytes may say that it has a million equal rows.
    for (int count = 0; count < 10000; ++count) {
      try {
        const auto row = rows->next();
        if (!row) break;
        if (static_cast<int64_t>(row->size()) > kMaxLineBytes) std::abort();
      } catch (const BadRow&) {
        // One that is too long: the next one follows.
      }
    }
  } catch (const tptrain::DataError&) {
    // A refusal is one of the right answers.
  }
  ::close(descriptor);
  return 0;
}
