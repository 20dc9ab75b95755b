#include "tokenizer/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/directory.h"
#include "tokenizer/bpe_loaders.h"

namespace tptrain::tokenizer {

namespace fs = std::filesystem;

namespace {

const std::vector<std::string>& known_names() {
  static const std::vector<std::string> names = {
      "tokenizer.json",    "tokenizer.model",       "vocab.json",
      "merges.txt",        "tokenizer_config.json", "special_tokens_map.json",
      "added_tokens.json", "chat_template.jinja",   "chat_template.json",
      "tekken.json"};
  return names;
}

/// Those that end so: templates of a folder, ranks under names of their own ("qwen.tiktoken").
void append_ending(const fs::path& folder, const std::string& prefix, const char* ending,
                   std::vector<std::string>& names) {
  for (const fs::path& path : entries_if_readable(folder)) {
    const std::string name = path.filename().string();
    if (name.ends_with(ending) && is_file(path)) names.push_back(prefix + name);
  }
}

}  // namespace

bool is_tokenizer_file_name(std::string_view name) {
  const std::vector<std::string>& known = known_names();
  return std::find(known.begin(), known.end(), name) != known.end() || name.ends_with(".tiktoken");
}

bool has_redundant_ranks(const std::string& directory) {
  const fs::path folder = directory;
  if (!is_file(folder / "tokenizer.json") || !is_file(folder / "tokenizer.model")) return false;
  std::string beginning(4096, '\0');
  std::ifstream in(folder / "tokenizer.model", std::ios::binary);
  in.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  beginning.resize(static_cast<size_t>(in.gcount()));
  return looks_like_tiktoken(beginning);
}

std::vector<std::string> tokenizer_file_names(const std::string& path) {
  if (path == "bytes") return {};
  const std::vector<std::string>& known = known_names();
  fs::path folder = path;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    if (!is_tokenizer_file_name(folder.filename().string())) return {};
    folder = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  }
  const bool redundant = has_redundant_ranks(folder.string());
  std::vector<std::string> names;
  for (const std::string& name : known) {
    if (redundant && name == "tokenizer.model") continue;
    if (is_file(folder / name)) names.push_back(name);
  }
  append_ending(folder, "", ".tiktoken", names);
  append_ending(folder / "additional_chat_templates", "additional_chat_templates/", ".jinja",
                names);
  return names;
}

}  // namespace tptrain::tokenizer
