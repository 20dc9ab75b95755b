#include "checkpoint/model_files.h"

#include <map>
#include <system_error>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "tokenizer/tokenizer_files.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr const char* kChatTemplate = "chat_template.jinja";
// A tokenizer.json of a quarter million entries is 20 MB.
constexpr int64_t kFileBytesLimit = int64_t{1} << 30;

void keep(const fs::path& from, const fs::path& to) {
  const std::string bytes = read_file(from, kFileBytesLimit);
  if (is_file(to) && read_file(to, kFileBytesLimit, FailAs::checkpoint_error) == bytes) return;
  write_file_atomically(to, bytes);
}

}  // namespace

fs::path model_files_of_run(const fs::path& run_dir) { return run_dir / "model_files"; }

fs::path model_files_of_checkpoint(const fs::path& checkpoint) {
  // run_dir/checkpoints/step-00000100, also where the path is relative or ends in a slash.
  std::error_code ignored;
  fs::path whole = fs::weakly_canonical(checkpoint, ignored);
  if (whole.empty()) whole = checkpoint;
  return model_files_of_run(whole.parent_path().parent_path());
}

void keep_model_files(const fs::path& run_dir, const std::string& model_path,
                      const std::string& tokenizer, const std::string& chat_template) {
  std::map<std::string, fs::path> files;  // by the name of the copy
  if (!model_path.empty()) {
    for (const char* name : {"config.json", "generation_config.json"}) {
      if (is_file(fs::path(model_path) / name)) files[name] = fs::path(model_path) / name;
    }
  }
  std::error_code ignored;
  if (fs::is_directory(tokenizer, ignored)) {
    for (const std::string& name : tokenizer::tokenizer_file_names(tokenizer))
      files[name] = fs::path(tokenizer) / name;
  } else if (tokenizer != "bytes" && is_file(tokenizer)) {
    // A file alone is read by its name, and so is the copy. (vocab.json comes with its merges.txt.)
    for (const std::string& name : tokenizer::tokenizer_file_names(tokenizer))
      files[name] = fs::path(tokenizer).parent_path() / name;
  }
  // What the run trains on is what its checkpoints are to be asked in.
  const bool own_template = !chat_template.empty() && tokenizer != "bytes";
  if (own_template) files[kChatTemplate] = chat_template;
  if (files.empty()) return;
  const fs::path directory = model_files_of_run(run_dir);
  if (!files.contains(kChatTemplate)) fs::remove(directory / kChatTemplate, ignored);
  for (const auto& [name, from] : files) {
    create_directories_durably((directory / name).parent_path(), FailAs::checkpoint_error);
    keep(from, directory / name);
  }
}

}  // namespace tptrain::checkpoint
