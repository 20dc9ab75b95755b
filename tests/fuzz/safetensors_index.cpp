// Fuzzes the reader of model.safetensors.index.json: whatever the bytes, they are refused with a
// DataError, or every file they name lies in the directory itself.
#include "formats/safetensors_index.h"

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

#include "base/error.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto index = tptrain::formats::parse_safetensors_index(text, "fuzz");
    require(!index.rows.empty());
    for (const std::string& file : index.files) {
      require(file.find('/') == std::string::npos && file.find('\0') == std::string::npos);
      require(file.size() > 12 && file.ends_with(".safetensors") && !file.starts_with(".."));
    }
    std::map<std::string, std::string> weight_map;
    for (size_t i = 0; i < index.rows.size(); ++i) {
      require(index.rows[i].file < index.files.size());
      require(i == 0 || index.rows[i - 1].tensor < index.rows[i].tensor);
      weight_map[index.rows[i].tensor] = index.files[index.rows[i].file];
    }
    const auto again = tptrain::formats::parse_safetensors_index(
        tptrain::formats::safetensors_index_text(weight_map, 0, 0), "again");
    require(again.rows.size() == index.rows.size());
  } catch (const tptrain::DataError&) {
    // A refusal is one of the right answers.
  }
  return 0;
}
