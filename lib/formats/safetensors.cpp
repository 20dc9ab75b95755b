#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "formats/strict_json.h"

namespace tptrain::formats {

static_assert(std::endian::native == std::endian::little,
              "safetensors bytes are little-endian and are mapped as they lie");

namespace {

using Json = nlohmann::json;

// The reference implementation's own bound: a header beyond it is refused before it is read.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kLengthBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<DtypeRow, 15> kDtypes{{{Dtype::boolean, "BOOL", 1},
                                            {Dtype::u8, "U8", 1},
                                            {Dtype::i8, "I8", 1},
                                            {Dtype::f8_e5m2, "F8_E5M2", 1},
                                            {Dtype::f8_e4m3, "F8_E4M3", 1},
                                            {Dtype::i16, "I16", 2},
                                            {Dtype::u16, "U16", 2},
                                            {Dtype::f16, "F16", 2},
                                            {Dtype::bf16, "BF16", 2},
                                            {Dtype::i32, "I32", 4},
                                            {Dtype::u32, "U32", 4},
                                            {Dtype::f32, "F32", 4},
                                            {Dtype::f64, "F64", 8},
                                            {Dtype::i64, "I64", 8},
                                            {Dtype::u64, "U64", 8}}};

const DtypeRow& row_of(Dtype dtype) {
  return *std::find_if(kDtypes.begin(), kDtypes.end(),
                       [&](const DtypeRow& row) { return row.dtype == dtype; });
}

// Nothing where the product leaves int64 or a dimension is negative.
std::optional<int64_t> byte_size(Dtype dtype, const std::vector<int64_t>& shape) {
  int64_t size = dtype_bytes(dtype);
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(size, extent, &size)) return std::nullopt;
  }
  return size;
}

// A name out of a file of unknown origin, fit for one line of a message.
std::string quoted(const std::string& name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return out + (name.size() > 200 ? "...\"" : "\"");
}

// Sets offsets and sizes and gives the header's text, padded so that the tensors begin at a
// multiple of 8 bytes.
std::string make_header(std::vector<SafetensorsEntry>& entries,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();  // sorts its keys
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  int64_t offset = 0;
  for (SafetensorsEntry& entry : entries) {
    const std::optional<int64_t> size = byte_size(entry.dtype, entry.shape);
    int64_t end = 0;
    if (!size || __builtin_add_overflow(offset, *size, &end)) {
      throw InternalError(problem(cat("tensor ", quoted(entry.name), " of shape [",
                                      join(entry.shape), "] has no size in bytes")));
    }
    if (entry.name == kMetadataKey || header.contains(entry.name)) {
      throw InternalError(
          problem(cat("tensor name ", quoted(entry.name), " is reserved or given twice")));
    }
    entry.offset_bytes = offset;
    entry.size_bytes = *size;
    header[entry.name] = {{"dtype", dtype_name(entry.dtype)},
                          {"shape", entry.shape},
                          {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception& e) {
    throw InternalError(problem(cat("a tensor name or metadata is not UTF-8: ", e.what())));
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

// The checks of one header entry that need no other entry. Places errors at `where`, which names
// the file.
class EntryParser {
 public:
  EntryParser(const std::string& where, int64_t data_bytes)
      : where_(where), data_bytes_(data_bytes) {}

  SafetensorsEntry parse(const std::string& name, const Json& value) const {
    SafetensorsEntry entry;
    entry.name = name;
    if (!value.is_object()) refuse(name, "is no object", "be {dtype, shape, data_offsets}");
    for (const auto& [key, unused] : value.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        refuse(name, cat("has the unknown field ", quoted(key)), "be {dtype, shape, data_offsets}");
      }
    }
    if (value.size() != 3) refuse(name, "lacks a field", "be {dtype, shape, data_offsets}");
    entry.dtype = parse_dtype(name, value["dtype"]);
    const Json& shape = value["shape"];
    if (!shape.is_array()) refuse(name, "has a shape that is no list", "be a list of sizes");
    for (const Json& extent : shape) {
      entry.shape.push_back(parse_size(name, extent, "a shape"));
    }
    const Json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) {
      refuse(name, "has data_offsets that are no pair", "be [begin, end]");
    }
    const int64_t begin = parse_size(name, offsets[0], "data_offsets");
    const int64_t end = parse_size(name, offsets[1], "data_offsets");
    if (begin > end || end > data_bytes_) {
      refuse(name, cat("has data_offsets [", begin, ", ", end, "]"),
             cat("rise and lie within the ", data_bytes_,
                 " bytes after the header; the file may be truncated"));
    }
    const std::optional<int64_t> size = byte_size(entry.dtype, entry.shape);
    if (!size)
      refuse(name, cat("has shape [", join(entry.shape), "], whose size overflows"),
             "fit into memory");
    if (*size != end - begin) {
      refuse(name,
             cat("has ", end - begin, " bytes by data_offsets, ", *size, " by ",
                 dtype_name(entry.dtype), " and shape [", join(entry.shape), "]"),
             "have the same number of bytes by both");
    }
    entry.offset_bytes = begin;
    entry.size_bytes = *size;
    return entry;
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& received,
                           const std::string& constraint) const {
    throw DataError(
        problem(cat("tensor ", quoted(name), " ", received)).at(where_).must(constraint));
  }

  Dtype parse_dtype(const std::string& name, const Json& value) const {
    const std::string text = value.is_string() ? value.get<std::string>() : value.type_name();
    std::vector<std::string_view> known;
    for (const DtypeRow& row : kDtypes) {
      if (row.name == text && value.is_string()) return row.dtype;
      known.push_back(row.name);
    }
    refuse(name, cat("has the unknown dtype ", quoted(text)), cat("be one of ", join(known)));
  }

  int64_t parse_size(const std::string& name, const Json& value, const char* what) const {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      refuse(name, cat("has ", what, " with a member that is no size"),
             "hold whole numbers from 0 up");
    }
    return value.get<int64_t>();
  }

  const std::string& where_;
  int64_t data_bytes_;
};

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& where) {
  std::map<std::string, std::string> metadata;
  const bool is_text_map =
      value.is_object() &&
      std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); });
  if (!is_text_map) {
    throw DataError(
        problem("__metadata__ is something else").at(where).must("be an object of texts"));
  }
  for (const auto& [key, text] : value.items()) metadata[key] = text.get<std::string>();
  return metadata;
}

// The bytes must be covered exactly once: `entries` are in rising order.
void check_contiguous(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes,
                      const std::string& where) {
  int64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset_bytes != expected) {
      const char* fault = entry.offset_bytes > expected ? "a hole lies before it"
                                                        : "it overlaps the tensor before it";
      throw DataError(problem(cat("tensor ", quoted(entry.name), " begins at byte ",
                                  entry.offset_bytes, " of the data: ", fault))
                          .at(where)
                          .must(cat("begin at byte ", expected)));
    }
    expected += entry.size_bytes;
  }
  if (expected != data_bytes) {
    throw DataError(problem(cat("the tensors end at byte ", expected, " of the data, but ",
                                data_bytes, " bytes follow the header"))
                        .at(where)
                        .must("end with its last tensor"));
  }
}

}  // namespace

std::string_view dtype_name(Dtype dtype) { return row_of(dtype).name; }
int64_t dtype_bytes(Dtype dtype) { return row_of(dtype).bytes; }

int64_t SafetensorsWriter::file_bytes(std::vector<SafetensorsEntry> entries,
                                      const std::map<std::string, std::string>& metadata) {
  int64_t total = kLengthBytes + static_cast<int64_t>(make_header(entries, metadata).size());
  for (const SafetensorsEntry& entry : entries) total += entry.size_bytes;
  return total;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = make_header(entries, metadata);
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

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : map_(path) {
  const std::string where = path.string();
  const std::span<const std::byte> file = map_.bytes();
  const int64_t file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    throw DataError(
        problem(cat("the file has ", file_bytes, " bytes"))
            .at(where)
            .must("begin with 8 bytes of header length; it is truncated or no safetensors file"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > static_cast<uint64_t>(kMaxHeaderBytes)) {
    throw DataError(
        problem(cat("header length is ", header_bytes))
            .at(where)
            .must(cat("be at most ", kMaxHeaderBytes, "; this is no safetensors file")));
  }
  data_begin_ = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (data_begin_ > file_bytes) {
    throw DataError(problem(cat("the header ends at byte ", data_begin_, " of a file of ",
                                file_bytes, " bytes"))
                        .at(where)
                        .must("lie within the file; it is truncated"));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                              header_bytes);
  const Json header = parse_strict_json(text, where + ": header");
  if (!header.is_object() || text.front() != '{') {
    throw DataError(problem("the header is no JSON object").at(where).must("begin with '{'"));
  }
  const int64_t data_bytes = file_bytes - data_begin_;
  const EntryParser parser(where, data_bytes);
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey) {
      metadata_ = parse_metadata(value, where);
    } else {
      entries_.push_back(parser.parse(name, value));
    }
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.offset_bytes, a.size_bytes, a.name) <
                     std::tie(b.offset_bytes, b.size_bytes, b.name);
            });
  check_contiguous(entries_, data_bytes, where);
  for (size_t i = 0; i < entries_.size(); ++i) by_name_[entries_[i].name] = i;
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  return map_.bytes().subspan(static_cast<size_t>(data_begin_ + entry.offset_bytes),
                              static_cast<size_t>(entry.size_bytes));
}

}  // namespace tptrain::formats
