// What a data file holds, by its first bytes and its name: text, rows, or something that is not
// read, with the way out. Opens nothing.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "config/run_config.h"
#include "data/jsonl_rows.h"
#include "data/row_reader.h"

namespace tptrain::data {

/// indexed: Megatron's token files; a file is then the .idx of one.
enum class Format { text, rows, indexed };

struct FileKind {
  Format format = Format::text;
  RowLayout layout = RowLayout::lines;  // of rows
  /// Where the file is neither: what it seems to be ("a Parquet file"), and what to do.
  std::string refused_as = {};
  std::string remedy = {};
  bool usable() const { return refused_as.empty(); }
};

/// `head`: the first bytes, unpacked, 64 KiB where there are as many. `format`, of data.format:
/// what a user says counts for more than what a file looks like. `names`: of the keys of rows.
FileKind kind_of_file(const std::filesystem::path& path, std::string_view head,
                      std::optional<config::DataFormat> format, const RowNames& names = {});

/// Whether the name (without .gz and .zst) says rows: .jsonl, .ndjson, .json, in any case.
bool named_rows(const std::filesystem::path& path);
/// .txt, .text
bool named_text(const std::filesystem::path& path);

}  // namespace tptrain::data
