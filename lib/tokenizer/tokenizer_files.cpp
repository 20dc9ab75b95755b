#include "tokenizer/tokenizer_files.h"

#include <algorithm>
#include <filesystem>

namespace tptrain::tokenizer {

std::vector<std::string> tokenizer_file_names(const std::string& path) {
  if (path == "bytes") return {};
  const std::vector<std::string> known = {
      "tokenizer.json",    "tokenizer.model",       "vocab.json",
      "merges.txt",        "tokenizer_config.json", "special_tokens_map.json",
      "added_tokens.json", "chat_template.jinja",   "chat_template.json"};
  std::filesystem::path folder = path;
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    const std::string own = folder.filename().string();
    if (std::find(known.begin(), known.end(), own) == known.end()) return {};
    folder = folder.has_parent_path() ? folder.parent_path() : std::filesystem::path(".");
  }
  std::vector<std::string> names;
  for (const std::string& name : known) {
    if (std::filesystem::exists(folder / name, ignored)) names.push_back(name);
  }
  return names;
}

}  // namespace tptrain::tokenizer
