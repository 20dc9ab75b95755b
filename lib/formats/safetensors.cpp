#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/foreign_file.h"
#include "base/mapped_ranges.h"
#include "base/text.h"
#include "formats/links.h"

namespace tptrain::formats {

static_assert(std::endian::native == std::endian::little,
              "safetensors bytes are little-endian and are mapped as they lie");

namespace {

MappedFile map_of(const std::filesystem::path& path) {
  refuse_broken_link(path);
  MappedFile map(path);
  const std::span<const std::byte> bytes = map.bytes();
  refuse_foreign_file({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  return map;
}

}  // namespace

int64_t SafetensorsWriter::file_bytes(std::vector<SafetensorsEntry> entries,
                                      const std::map<std::string, std::string>& metadata) {
  const std::string header = make_safetensors_header(entries, metadata);
  auto total = static_cast<int64_t>(sizeof(uint64_t) + header.size());
  for (const SafetensorsEntry& entry : entries) total += entry.size_bytes;
  return total;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsEntry> entries,
                                     const std::map<std::string, std::string>& metadata,
                                     FileHash hash)
    : file_(path, FailAs::checkpoint_error, hash) {
  const std::string header = make_safetensors_header(entries, metadata);
  const uint64_t length = header.size();
  file_.write(&length, sizeof length);
  file_.write(header);
  for (const SafetensorsEntry& entry : entries) remaining_bytes_ += entry.size_bytes;
}

void SafetensorsWriter::write(const void* bytes, size_t count) {
  if (static_cast<int64_t>(count) > remaining_bytes_) {
    throw InternalError(
        problem(cat(count, " bytes given to a safetensors file that awaits ", remaining_bytes_)));
  }
  file_.write(bytes, count);
  remaining_bytes_ -= static_cast<int64_t>(count);
}

DurableFile::Written SafetensorsWriter::commit() {
  if (remaining_bytes_ != 0) {
    throw InternalError(
        problem(cat("a safetensors file was closed with ", remaining_bytes_, " bytes missing")));
  }
  return file_.commit();
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : map_(map_of(path)), header_(read_safetensors_header(map_.bytes(), path.string())) {
  by_name_.resize(header_.entries.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(), [this](uint32_t a, uint32_t b) {
    return header_.entries[a].name < header_.entries[b].name;
  });
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [this](uint32_t i, const std::string& key) { return header_.entries[i].name < key; });
  if (found == by_name_.end() || header_.entries[*found].name != name) return nullptr;
  return &header_.entries[*found];
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  return map_.bytes().subspan(static_cast<size_t>(header_.data_begin + entry.offset_bytes),
                              static_cast<size_t>(entry.size_bytes));
}

void SafetensorsFile::release(std::span<const std::byte> bytes) const { release_mapped(bytes); }

}  // namespace tptrain::formats
