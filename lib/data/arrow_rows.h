// The rows of Parquet and Arrow files, each as the JSON text that it would be in a file of lines.
// With Arrow C++ where the program was built with it (third_party/arrow.cmake).
#pragma once

#include <filesystem>
#include <memory>

#include "data/row_reader.h"

namespace tptrain::data {

/// Whether this program can read them.
bool reads_arrow();

/// `layout`: parquet, arrow_file or arrow_stream. Rows are read batch by batch. A column that holds
/// nothing in a row is no key of it, and so is, within, a field without a value, but for "content".
/// Binary columns are left out. next() throws DataError where the file is damaged. Throws
/// InternalError where !reads_arrow().
std::unique_ptr<RowReader> open_arrow_rows(const std::filesystem::path& path, RowLayout layout);

}  // namespace tptrain::data
