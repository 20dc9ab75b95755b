// The header of a safetensors file: JSON text <-> entries, with every rule of the format. Looks at
// no file and at no tensor's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/dtype.h"

namespace tptrain::formats {

/// What the header says of one tensor.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  int64_t offset_bytes = 0;  // from the first byte after the header; the writer sets it
  int64_t size_bytes = 0;    // likewise
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order in which they lie in the file
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // bytes before the first tensor
};

/// The reference implementation's own bound: a header beyond it is refused before it is read.
constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// Reads and checks the header of a whole file. Strict: it must be valid JSON that begins with '{',
/// without duplicate keys or unknown fields, and the tensors must fill the file exactly, without
/// holes, overlaps or trailing bytes. Takes no more memory than about ten times the header's text.
/// Throws DataError naming `where`, the tensor and the rule that is broken.
SafetensorsHeader read_safetensors_header(std::span<const std::byte> file,
                                          const std::string& where);

/// Sets offsets and sizes of `entries`, one after another, and gives the header's text, padded so
/// that the tensors begin at a multiple of 8 bytes. Throws InternalError where a name is given
/// twice, reserved or not UTF-8, a tensor has no size in bytes, or the header is too large to be
/// read.
std::string make_safetensors_header(std::vector<SafetensorsEntry>& entries,
                                    const std::map<std::string, std::string>& metadata);

/// A name out of a file of unknown origin in quotes, fit for one line of a message.
std::string quoted_name(const std::string& name);

}  // namespace tptrain::formats
