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
#include <vector>

#include "base/files.h"
#include "formats/safetensors_header.h"

namespace tptrain::formats {

/// Writes a file front to back: the header at construction, then the tensors' bytes in the order
/// given, in pieces of any size. Equal input gives equal bytes.
class SafetensorsWriter {
 public:
  /// Creates `path`, which must not exist. Throws CheckpointError (file), InternalError (a name
  /// twice or reserved, a negative size).
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsEntry> entries,
                    const std::map<std::string, std::string>& metadata = {},
                    FileHash hash = FileHash::whole);
  /// The next bytes of the tensors, little-endian. Throws InternalError where there are more than
  /// the header announces.
  void write(const void* bytes, size_t count);
  /// fsync and close; size and hash of the whole file. Throws InternalError where bytes are
  /// missing.
  DurableFile::Written commit();

  /// Bytes the finished file will have, without writing it.
  static int64_t file_bytes(std::vector<SafetensorsEntry> entries,
                            const std::map<std::string, std::string>& metadata = {});

 private:
  DurableFile file_;
  int64_t remaining_bytes_ = 0;
};

/// A whole file, checked (read_safetensors_header) and mapped: of the tensors, only what is looked
/// at is read. What lies in a tensor is not checked.
class SafetensorsFile {
 public:
  /// Follows symbolic links. Throws DataError naming the file, the tensor and the rule that is
  /// broken.
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// In the order in which they lie in the file.
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// All of it: the header, then from data_begin() on the tensors.
  std::span<const std::byte> bytes() const { return map_.bytes(); }
  int64_t data_begin() const { return header_.data_begin; }
  int64_t size_bytes() const { return static_cast<int64_t>(map_.bytes().size()); }
  /// nullptr where there is none of this name.
  const SafetensorsEntry* find(const std::string& name) const;
  /// Valid as long as this object lives, at any alignment. `entry` must be one of entries().
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;
  /// Bytes of this file that were read and will hardly be again: their pages no longer count as
  /// this process's memory. They can be read again all the same.
  void release(std::span<const std::byte> bytes) const;

 private:
  MappedFile map_;
  SafetensorsHeader header_;
  std::vector<uint32_t> by_name_;  // numbers of entries, in the order of their names
};

}  // namespace tptrain::formats
