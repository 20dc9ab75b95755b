#include "model/families/family.h"

#include <array>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::model {

namespace {

const std::array<Family, 5>& families() {
  static const std::array<Family, 5> all = {llama_family(), qwen2_family(), qwen3_family(),
                                            mistral_family(), gpt2_family()};
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

sharding::StoredModel stored_model(const DecoderConfig& config) {
  const Family* family = find_family(config.model_type);
  if (family) return family->stored(config);
  throw InternalError(
      problem(cat("a decoder of model_type \"", config.model_type, "\" has no stored form")));
}

}  // namespace tptrain::model
