#include "model/families/family.h"

#include <array>

namespace tptrain::model {

namespace {

const std::array<Family, 2>& families() {
  static const std::array<Family, 2> all = {llama_family(), qwen2_family()};
  return all;
}

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const Family& family : families()) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.emplace_back(family.model_type);
  return names;
}

}  // namespace tptrain::model
