// The safetensors format: 8 bytes of header length, a JSON header (name -> dtype, shape,
// data_offsets), then the tensors' bytes without holes. Free of torch: a tensor here is a name, a
// type, a shape and a span of bytes. Source: github.com/huggingface/safetensors, README "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/files.h"

namespace tptrain::formats {

enum class Dtype {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  f64,
  i64,
  u64
};
/// As the format spells it: "BF16".
std::string_view dtype_name(Dtype dtype);
int64_t dtype_bytes(Dtype dtype);

/// What the header says of one tensor.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  int64_t offset_bytes = 0;  // from the first byte after the header; the writer sets it
  int64_t size_bytes = 0;    // likewise
};

/// Writes a file front to back: the header at construction, then the tensors' bytes in the order
/// given, in pieces of any size. Equal input gives equal bytes.
class SafetensorsWriter {
 public:
  /// Creates `path`, which must not exist. Throws CheckpointError (file), InternalError (a name
  /// twice or reserved, a negative size).
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsEntry> entries,
                    const std::map<std::string, std::string>& metadata = {});
  /// The next bytes of the tensors, little-endian. Throws InternalError where there are more than
  /// the header announces.
  void write(const void* bytes, size_t count);
  /// fsync and close; size and SHA-256 of the whole file. Throws InternalError where bytes are
  /// missing.
  DurableFile::Written commit();

  /// Bytes the finished file will have, without writing it.
  static int64_t file_bytes(std::vector<SafetensorsEntry> entries,
                            const std::map<std::string, std::string>& metadata = {});

 private:
  DurableFile file_;
  int64_t remaining_bytes_ = 0;
};

/// A whole file, checked and mapped. Strict: the header must be whole, valid and free of duplicate
/// keys, and the tensors must fill the file exactly, without holes, overlaps or trailing bytes.
/// What lies in a tensor is not looked at.
class SafetensorsFile {
 public:
  /// Throws DataError naming the file, the tensor and the rule that is broken.
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// In the order in which they lie in the file.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// nullptr where there is none of this name.
  const SafetensorsEntry* find(const std::string& name) const;
  /// Valid as long as this object lives. `entry` must be one of entries().
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;

 private:
  MappedFile map_;
  int64_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace tptrain::formats
