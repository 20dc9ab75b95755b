#include "formats/safetensors_index.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "formats/safetensors_header.h"
#include "formats/strict_json.h"

namespace tptrain::formats {

namespace {

// As many as the names model-00001-of-99999.safetensors allow.
constexpr size_t kMaxFiles = 99'999;
constexpr size_t kMaxNameBytes = 255;  // of a file, on every file system here
constexpr int kMaxDepth = 64;
constexpr std::string_view kEnding = ".safetensors";

// "" where the name may be opened in the directory of the index, else why not.
std::string refusal_of_name(const std::string& name) {
  if (name.empty()) return "is empty";
  const bool separators = name.find_first_of("/\\") != std::string::npos;
  if (separators || name.starts_with("..")) return "leads to another directory";
  if (std::any_of(name.begin(), name.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    return "has a control character";
  }
  if (name.size() > kMaxNameBytes) return cat("has ", name.size(), " bytes");
  if (!name.ends_with(kEnding) || name.size() == kEnding.size()) {
    return "is no *.safetensors file";
  }
  return "";
}

class IndexEvents final : public JsonEvents {
 public:
  IndexEvents(const std::string& where, SafetensorsIndex& index) : where_(where), index_(index) {}

  void begin_object() override { begin("an object"); }
  void begin_array() override { begin("a list"); }
  void end_object() override { --depth_; }
  void end_array() override { --depth_; }

  void key(std::string&& name) override {
    if (depth_ == 1) {
      if (name == "weight_map" && std::exchange(has_weight_map_, true)) {
        refuse("it names weight_map twice", "name it once");
      }
      top_key_ = std::move(name);
    } else {
      key_ = std::move(name);
    }
  }

  void string(std::string&& text) override {
    if (depth_ == 2 && top_key_ == "weight_map") {
      add(text);
    } else {
      value("a text");
    }
  }

  void unsigned_number(uint64_t number) override {
    const bool fits = number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (depth_ == 2 && top_key_ == "metadata" && key_ == "total_size" && fits) {
      index_.total_size = static_cast<int64_t>(number);
      return;
    }
    value("a number");
  }

  void other(const char* kind) override { value(kind); }

  void finish() {
    if (!has_weight_map_) {
      refuse("it has no weight_map", "say which file holds which tensor, {\"weight_map\": {...}}");
    }
    auto& rows = index_.rows;
    std::sort(rows.begin(), rows.end(),
              [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
    const auto twice =
        std::adjacent_find(rows.begin(), rows.end(),
                           [](const auto& a, const auto& b) { return a.tensor == b.tensor; });
    if (twice != rows.end()) {
      refuse(cat("weight_map names the tensor ", quoted_name(twice->tensor), " twice"),
             "name each tensor once");
    }
    if (rows.empty()) refuse("its weight_map is empty", "name the model's tensors");
  }

 private:
  [[noreturn]] void refuse(const std::string& received, const std::string& constraint) const {
    throw DataError(problem(received).at(where_).must(constraint));
  }

  void begin(const char* kind) {
    const bool may_begin = depth_ == 0 ? std::string_view(kind) == "an object" : true;
    if (!may_begin) refuse("it is no JSON object", "be {\"metadata\": ..., \"weight_map\": {...}}");
    const bool is_map = depth_ == 1 && top_key_ == "weight_map";
    if (is_map && std::string_view(kind) != "an object") value(kind);
    if (depth_ >= 2 && top_key_ == "weight_map") value(kind);
    if (depth_ == kMaxDepth) {
      refuse("JSON nested deeper than this format ever is",
             cat("stay within ", kMaxDepth, " levels"));
    }
    ++depth_;
  }

  // What is neither a file name nor of interest: refused in weight_map, passed over elsewhere.
  void value(const char* kind) const {
    if (depth_ == 0)
      refuse("it is no JSON object", "be {\"metadata\": ..., \"weight_map\": {...}}");
    if (top_key_ != "weight_map") return;
    if (depth_ == 1) refuse(cat("its weight_map is ", kind), "be an object, tensor -> file");
    refuse(cat("weight_map says of tensor ", quoted_name(key_), " ", kind), "name a file");
  }

  void add(const std::string& file) {
    const auto known = file_numbers_.find(file);
    if (known != file_numbers_.end()) {
      index_.rows.push_back({std::move(key_), known->second});
      return;
    }
    if (const std::string reason = refusal_of_name(file); !reason.empty()) {
      throw DataError(problem(cat("weight_map says that tensor ", quoted_name(key_), " is in ",
                                  quoted_name(file), ", which ", reason))
                          .at(where_)
                          .must("name a *.safetensors file of the same directory"));
    }
    if (index_.files.size() == kMaxFiles) {
      refuse(cat("weight_map names more than ", kMaxFiles, " files"), "name fewer");
    }
    const auto number = static_cast<uint32_t>(index_.files.size());
    file_numbers_.emplace(file, number);
    index_.files.push_back(file);
    index_.rows.push_back({std::move(key_), number});
  }

  const std::string& where_;
  SafetensorsIndex& index_;
  int depth_ = 0;
  std::string top_key_;  // of the outermost object
  std::string key_;      // of the innermost
  bool has_weight_map_ = false;
  std::unordered_map<std::string, uint32_t> file_numbers_;
};

}  // namespace

SafetensorsIndex parse_safetensors_index(std::string_view text, const std::string& where) {
  SafetensorsIndex index;
  IndexEvents events(where, index);
  walk_json(text, where, events);
  events.finish();
  return index;
}

std::string safetensors_index_text(const std::map<std::string, std::string>& weight_map,
                                   int64_t total_size, int64_t total_parameters) {
  const nlohmann::json index = {
      {"metadata", {{"total_parameters", total_parameters}, {"total_size", total_size}}},
      {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

}  // namespace tptrain::formats
