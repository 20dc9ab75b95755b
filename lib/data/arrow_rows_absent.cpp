// A program without Arrow.
#include "base/error.h"
#include "data/arrow_rows.h"

namespace tptrain::data {

bool reads_arrow() { return false; }

std::unique_ptr<RowReader> open_arrow_rows(const std::filesystem::path& path, RowLayout) {
  throw InternalError(
      problem("rows of Parquet are asked of a program that reads none").at(path.string()));
}

}  // namespace tptrain::data
