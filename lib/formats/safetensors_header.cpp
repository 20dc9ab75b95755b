#include "formats/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "formats/strict_json.h"

namespace tptrain::formats {

namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";
constexpr const char* kFields = "be {dtype, shape, data_offsets}";
// Bounds that no real file comes near. They keep the memory for a hostile header a small multiple
// of its text, of which "[0,0,0,..." would otherwise make four times as many bytes.
constexpr size_t kMaxDims = 64;
constexpr size_t kMaxMetadata = 65'536;

// Header text -> entries. A tree of the JSON would take more than ten times the text's size, so
// this follows the events: what may come next depends only on where in the header we are.
class HeaderEvents final : public JsonEvents {
 public:
  HeaderEvents(const std::string& where, int64_t data_bytes, SafetensorsHeader& header)
      : where_(where), data_bytes_(data_bytes), header_(header) {}

  void begin_object() override {
    if (place_ == Place::start) {
      place_ = Place::top;
    } else if (place_ == Place::top && in_metadata_) {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      place_ = Place::entry;
      fields_ = 0;
    } else {
      refuse_value("an object");
    }
  }

  void key(std::string&& name) override {
    if (place_ == Place::metadata) {
      metadata_key_ = std::move(name);
    } else if (place_ == Place::entry) {
      begin_field(name);
    } else {
      in_metadata_ = name == kMetadataKey;
      if (in_metadata_ && std::exchange(has_metadata_, true)) {
        throw DataError(
            problem("the header names __metadata__ twice").at(where_).must("name each key once"));
      }
      entry_ = {};
      entry_.name = std::move(name);
    }
  }

  void end_object() override {
    if (place_ == Place::entry) finish_entry();
    place_ = place_ == Place::top ? Place::end : Place::top;
  }

  void begin_array() override {
    if (place_ == Place::entry && field_ == kShape) {
      place_ = Place::shape;
    } else if (place_ == Place::entry && field_ == kOffsets) {
      place_ = Place::offsets;
    } else {
      refuse_value("a list");
    }
  }

  void end_array() override {
    if (place_ == Place::offsets && offset_count_ != 2) refuse_offsets();
    place_ = Place::entry;
  }

  void string(std::string&& text) override {
    if (place_ == Place::metadata) {
      add_metadata(std::move(text));
    } else if (place_ == Place::entry && field_ == kDtype) {
      set_dtype(text);
    } else {
      refuse_value("a text");
    }
  }

  void unsigned_number(uint64_t value) override {
    const bool fits = value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!fits || (place_ != Place::shape && place_ != Place::offsets)) {
      refuse_value(fits ? "a number" : "a number beyond 2^63");
    }
    const auto size = static_cast<int64_t>(value);
    if (place_ == Place::shape) {
      if (entry_.shape.size() == kMaxDims) {
        refuse(cat("has more than ", kMaxDims, " dimensions"), "have fewer");
      }
      entry_.shape.push_back(size);
      return;
    }
    if (offset_count_ == 2) refuse_offsets();
    offsets_[offset_count_++] = size;
  }

  void other(const char* kind) override { refuse_value(kind); }

 private:
  enum class Place { start, top, metadata, entry, shape, offsets, end };
  enum Field : unsigned { kDtype = 1, kShape = 2, kOffsets = 4 };

  [[noreturn]] void refuse(const std::string& received, const std::string& constraint) const {
    throw DataError(problem(cat("tensor ", quoted_name(entry_.name), " ", received))
                        .at(where_)
                        .must(constraint));
  }
  [[noreturn]] void refuse_offsets() const {
    refuse("has data_offsets that are no pair", "be [begin, end]");
  }

  // A value of a kind that may not stand here.
  [[noreturn]] void refuse_value(const char* kind) const {
    switch (place_) {
      case Place::start:
      case Place::end:
        throw DataError(problem("the header is no JSON object").at(where_).must("begin with '{'"));
      case Place::metadata:
        break;
      case Place::top:
        if (in_metadata_) break;
        refuse("is no object", kFields);
      case Place::entry:
        if (field_ == kDtype) refuse(cat("has a dtype that is ", kind), "be a text");
        if (field_ == kShape) refuse("has a shape that is no list", "be a list of sizes");
        refuse_offsets();
      case Place::shape:
      case Place::offsets:
        refuse(cat("has ", place_ == Place::shape ? "a shape" : "data_offsets",
                   " with a member that is no size (", kind, ")"),
               "hold whole numbers from 0 up");
    }
    throw DataError(
        problem("__metadata__ is something else").at(where_).must("be an object of texts"));
  }

  void begin_field(const std::string& name) {
    field_ = name == "dtype"          ? kDtype
             : name == "shape"        ? kShape
             : name == "data_offsets" ? kOffsets
                                      : 0U;
    if (field_ == 0) refuse(cat("has the unknown field ", quoted_name(name)), kFields);
    if ((fields_ & field_) != 0) refuse(cat("names the field ", name, " twice"), kFields);
    fields_ |= field_;
    offset_count_ = field_ == kOffsets ? 0 : offset_count_;
  }

  void set_dtype(const std::string& text) {
    const std::optional<Dtype> dtype = find_dtype(text);
    if (!dtype) {
      refuse(cat("has the unknown dtype ", quoted_name(text)),
             cat("be one of ", join(dtype_names())));
    }
    entry_.dtype = *dtype;
  }

  void add_metadata(std::string&& text) {
    if (header_.metadata.size() == kMaxMetadata) {
      throw DataError(problem(cat("__metadata__ has more than ", kMaxMetadata, " entries"))
                          .at(where_)
                          .must("have fewer"));
    }
    if (!header_.metadata.emplace(metadata_key_, std::move(text)).second) {
      throw DataError(problem(cat("__metadata__ names ", quoted_name(metadata_key_), " twice"))
                          .at(where_)
                          .must("name each key once"));
    }
  }

  // The checks that need no other entry.
  void finish_entry() {
    if (fields_ != (kDtype | kShape | kOffsets)) refuse("lacks a field", kFields);
    const auto [begin, end] = std::pair(offsets_[0], offsets_[1]);
    if (begin > end || end > data_bytes_) {
      refuse(cat("has data_offsets [", begin, ", ", end, "]"),
             cat("rise and lie within the ", data_bytes_,
                 " bytes after the header; the file may be truncated"));
    }
    const std::optional<int64_t> size = tensor_bytes(entry_.dtype, entry_.shape);
    if (!size) {
      refuse(cat("of ", dtype_name(entry_.dtype), " has shape [", join(entry_.shape),
                 "], whose size overflows or is not a whole number of bytes"),
             "have a size in bytes");
    }
    if (*size != end - begin) {
      refuse(cat("has ", end - begin, " bytes by data_offsets, ", *size, " by ",
                 dtype_name(entry_.dtype), " and shape [", join(entry_.shape), "]"),
             "have the same number of bytes by both");
    }
    entry_.offset_bytes = begin;
    entry_.size_bytes = *size;
    entry_.shape.shrink_to_fit();
    header_.entries.push_back(std::move(entry_));
  }

  const std::string& where_;
  int64_t data_bytes_;
  SafetensorsHeader& header_;
  Place place_ = Place::start;
  bool in_metadata_ = false;   // the key just read at the top
  bool has_metadata_ = false;  // anywhere so far
  std::string metadata_key_;
  SafetensorsEntry entry_;  // being read
  unsigned field_ = 0;      // of it, being read
  unsigned fields_ = 0;     // of it, read so far
  int64_t offsets_[2] = {0, 0};
  int offset_count_ = 0;
};

void check_names(const std::vector<SafetensorsEntry>& entries, const std::string& where) {
  std::vector<const std::string*> names;
  names.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) names.push_back(&entry.name);
  std::sort(names.begin(), names.end(), [](const auto* a, const auto* b) { return *a < *b; });
  const auto twice = std::adjacent_find(names.begin(), names.end(),
                                        [](const auto* a, const auto* b) { return *a == *b; });
  if (twice == names.end()) return;
  throw DataError(problem(cat("the header names the tensor ", quoted_name(**twice), " twice"))
                      .at(where)
                      .must("name each tensor once"));
}

// The bytes must be covered exactly once: `entries` are in rising order.
void check_contiguous(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes,
                      const std::string& where) {
  int64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset_bytes != expected) {
      const char* fault = entry.offset_bytes > expected ? "a hole lies before it"
                                                        : "it overlaps the tensor before it";
      throw DataError(problem(cat("tensor ", quoted_name(entry.name), " begins at byte ",
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

std::string quoted_name(const std::string& name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return out + (name.size() > 200 ? "...\"" : "\"");
}

SafetensorsHeader read_safetensors_header(std::span<const std::byte> file,
                                          const std::string& where) {
  const auto file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    throw DataError(
        problem(cat("the file has ", file_bytes, " bytes"))
            .at(where)
            .must("begin with 8 bytes of header length; it is truncated or no safetensors file"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    throw DataError(
        problem(cat("header length is ", header_bytes))
            .at(where)
            .must(cat("be at most ", kMaxSafetensorsHeaderBytes, "; this is no safetensors file")));
  }
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (header.data_begin > file_bytes) {
    throw DataError(problem(cat("the header ends at byte ", header.data_begin, " of a file of ",
                                file_bytes, " bytes"))
                        .at(where)
                        .must("lie within the file; it is truncated"));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                              header_bytes);
  if (!text.starts_with('{')) {
    throw DataError(problem("the header is no JSON object").at(where).must("begin with '{'"));
  }
  const int64_t data_bytes = file_bytes - header.data_begin;
  HeaderEvents events(where, data_bytes, header);
  walk_json(text, where + ": header", events);
  std::sort(header.entries.begin(), header.entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.offset_bytes, a.size_bytes, a.name) <
                     std::tie(b.offset_bytes, b.size_bytes, b.name);
            });
  check_names(header.entries, where);
  check_contiguous(header.entries, data_bytes, where);
  return header;
}

std::string make_safetensors_header(std::vector<SafetensorsEntry>& entries,
                                    const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();  // sorts its keys
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  int64_t offset = 0;
  for (SafetensorsEntry& entry : entries) {
    const std::optional<int64_t> size = tensor_bytes(entry.dtype, entry.shape);
    int64_t end = 0;
    if (!size || __builtin_add_overflow(offset, *size, &end)) {
      throw InternalError(problem(cat("tensor ", quoted_name(entry.name), " of shape [",
                                      join(entry.shape), "] has no size in bytes")));
    }
    if (entry.name == kMetadataKey || header.contains(entry.name)) {
      throw InternalError(
          problem(cat("tensor name ", quoted_name(entry.name), " is reserved or given twice")));
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
  if (static_cast<int64_t>(text.size()) > kMaxSafetensorsHeaderBytes) {
    throw InternalError(problem(cat("a safetensors header of ", text.size(), " bytes"))
                            .must(cat("be at most ", kMaxSafetensorsHeaderBytes)));
  }
  return text;
}

}  // namespace tptrain::formats
