#include "checkpoint/manifest_events.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "formats/strict_json.h"

namespace tptrain::checkpoint {

using Json = nlohmann::json;

namespace {

constexpr size_t kMaxDepth = 8;

class ElementReader final : public formats::JsonEvents {
 public:
  explicit ElementReader(const std::function<void(Json&&)>& on_element) : on_element_(on_element) {}

  void begin_object() override { open(Json::object()); }
  void begin_array() override { open(Json::array()); }
  void end_object() override { close(); }
  void end_array() override { close(); }
  void key(std::string&& name) override {
    if (open_.back()->contains(name))
      throw Refused(cat("manifest names the key \"", one_line(name), "\" twice"));
    key_ = std::move(name);
    if (open_.size() == 1) streams_ = key_ == "pieces" || key_ == "tensors";
  }
  void string(std::string&& text) override { add(Json(std::move(text))); }
  void unsigned_number(uint64_t value) override { add(Json(value)); }
  void negative_number(int64_t value) override { add(Json(value)); }
  void other(const char* kind) override {
    throw Refused(cat("manifest holds ", kind, ", which no manifest does"));
  }

  Json take() { return std::move(root_); }

 private:
  // Where the list that is streamed is the innermost: what is added is one of its elements.
  bool is_element() const { return streams_ && open_.size() == 2 && open_[1]->is_array(); }

  Json* add(Json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (is_element()) {
      if (value.is_structured()) {
        element_ = std::move(value);
        return &element_;
      }
      on_element_(std::move(value));
      return nullptr;
    }
    Json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  void open(Json&& empty) {
    if (open_.size() == kMaxDepth) throw Refused("manifest is nested deeper than any is");
    // A pointer stays good: until it is closed nothing is added to its parent.
    open_.push_back(add(std::move(empty)));
  }
  void close() {
    const bool element = open_.back() == &element_;
    open_.pop_back();
    if (element) on_element_(std::move(element_));
  }

  const std::function<void(Json&&)>& on_element_;
  Json root_;
  Json element_;
  std::vector<Json*> open_;
  std::string key_;
  bool streams_ = false;  // the root's member that is being read
};

}  // namespace

Json read_manifest_events(std::string_view text, const std::function<void(Json&&)>& on_element) {
  ElementReader reader(on_element);
  try {
    formats::walk_json(text, "manifest", reader);
  } catch (const Error& e) {
    throw Refused(plain_message(e));
  }
  return reader.take();
}

}  // namespace tptrain::checkpoint
