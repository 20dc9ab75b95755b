// model.safetensors.index.json: which file of a model holds which tensor. Looks at no other file:
// whether they say the same is for the reader of the model to check.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::formats {

struct SafetensorsIndex {
  struct Row {
    std::string tensor;
    uint32_t file = 0;  // number in `files`
  };
  std::vector<Row> rows;              // by tensor, rising; each once
  std::vector<std::string> files;     // plain names, in the order of their first mention; each once
  std::optional<int64_t> total_size;  // what metadata says; informational, often wrong by design
};

/// Throws DataError naming `where`: no object, no weight_map or a second one, a tensor named twice,
/// or a file that is not the plain name of a *.safetensors file in the same directory (no
/// separator, not absolute, no control character).
SafetensorsIndex parse_safetensors_index(std::string_view text, const std::string& where);

/// As transformers writes it. `weight_map`: tensor -> file.
std::string safetensors_index_text(const std::map<std::string, std::string>& weight_map,
                                   int64_t total_size, int64_t total_parameters);

}  // namespace tptrain::formats
