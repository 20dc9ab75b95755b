// Megatron-LM's indexed datasets: NAME.bin, the tokens of all documents end to end, and NAME.idx,
// where each begins. Read by token_file.h, written here. Layout of NAME.idx
// (megatron/core/datasets/ indexed_dataset.py), little-endian:
//   9 bytes   magic "MMIDIDX\0\0"
//   uint64    version, 1
//   uint8     type of a token: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16 (6, 7: floats)
//   uint64    sequences
//   uint64    entries of the last table: documents + 1
//   int32     a sequence: its length in tokens
//   int64     a sequence: where it begins in NAME.bin, in bytes
//   int64     a document, and one more: number of its first sequence
//   (int8     a sequence: its mode, in multimodal data sets)
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "formats/token_file.h"

namespace tptrain::formats {

inline constexpr std::string_view kIndexedMagic("MMIDIDX\0\0", 9);

struct IndexedHeader {
  StoredToken type = StoredToken::uint16;
  int64_t tokens = 0;
  std::vector<int64_t> document_ends = {};  // in tokens; without documents that are empty
};

/// Reads an .idx and trusts nothing in it: sizes, lengths, and that sequences lie end to end within
/// a .bin of `bin_bytes`. `name` is for messages. Throws DataError.
IndexedHeader decode_indexed_index(std::string_view bytes, int64_t bin_bytes,
                                   const std::string& name);

/// Writes the tokens of `from`, each document a sequence of its own, as uint16 where the vocabulary
/// fits, else as int32; labels are not written. Durably; the .idx comes last. Throws DataError.
void write_indexed(const TokenFile& from, const std::filesystem::path& stem);

}  // namespace tptrain::formats
