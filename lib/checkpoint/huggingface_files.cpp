#include "checkpoint/huggingface_files.h"

#include <algorithm>
#include <system_error>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/interruption.h"
#include "base/text.h"
#include "formats/links.h"
#include "tokenizer/tokenizer_files.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kMaxIndexBytes = 100'000'000;

[[noreturn]] void refuse_without_weights(const fs::path& directory) {
  std::string pickled;
  for (const fs::path& path : entries_of(directory, FailAs::data_error)) {
    const std::string name = path.filename().string();
    if (name.starts_with("pytorch_model") && pickled.empty()) pickled = name;
  }
  Problem p = problem(cat("neither ", kModelFileName, " nor ", kModelIndexName, " is here"))
                  .at(directory.string());
  if (pickled.empty()) {
    throw DataError(std::move(p).remedy(
        "Give the directory of a downloaded model, with its config.json and *.safetensors files."));
  }
  throw DataError(
      std::move(p).remedy(cat("The weights are pickled (", pickled,
                              "), and loading them would run code out of the file. Download the "
                              "model's safetensors files, or convert it once in Python: "
                              "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT).")));
}

}  // namespace

HuggingFaceFiles::HuggingFaceFiles(const fs::path& directory) : directory_(directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored)) {
    throw DataError(problem("there is no such directory")
                        .at(directory.string())
                        .remedy("Give the directory of a downloaded model."));
  }
  if (is_taken(directory / kModelFileName)) {
    ignored_index_ = is_taken(directory / kModelIndexName);
    open(kModelFileName);
    return;
  }
  const fs::path index_path = directory / kModelIndexName;
  if (!is_taken(index_path)) refuse_without_weights(directory);
  formats::refuse_broken_link(index_path);
  index_ =
      formats::parse_safetensors_index(read_file(index_path, kMaxIndexBytes), index_path.string());
  std::vector<std::string> missing;
  for (const std::string& name : index_->files) {
    if (!is_taken(directory / name)) missing.push_back(name);
  }
  if (!missing.empty()) {
    throw DataError(
        problem(cat(missing.size(), " of the ", index_->files.size(),
                    " files that the index names are not here"))
            .at(index_path.string())
            .remedy(cat("Finish the download or the copy. Missing:\n", capped_list(missing))));
  }
  for (const std::string& name : index_->files) open(name);
  check_index();
}

HuggingFaceFiles::HuggingFaceFiles(const fs::path& directory, const std::string& file)
    : directory_(directory) {
  open(file);
}

void HuggingFaceFiles::open(const std::string& name) {
  files_.push_back({name, formats::SafetensorsFile(directory_ / name)});
  for (const formats::SafetensorsEntry& entry : files_.back().file.entries()) {
    // A name in two files: the index names one of them, and check_index() complains of the other.
    tensors_.emplace(entry.name, Stored{files_.size() - 1, &entry});
  }
}

void HuggingFaceFiles::check_index() const {
  std::vector<std::string> wrong;
  for (const formats::SafetensorsIndex::Row& row : index_->rows) {
    if (files_[row.file].file.find(row.tensor) == nullptr) {
      wrong.push_back(cat("the index says that ", formats::quoted_name(row.tensor), " is in ",
                          files_[row.file].name, ", which lacks it"));
    }
  }
  const auto row_of = [&](const std::string& tensor) {
    const auto row = std::lower_bound(
        index_->rows.begin(), index_->rows.end(), tensor,
        [](const formats::SafetensorsIndex::Row& a, const std::string& b) { return a.tensor < b; });
    return row == index_->rows.end() || row->tensor != tensor ? nullptr : &*row;
  };
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const formats::SafetensorsEntry& entry : files_[i].file.entries()) {
      const formats::SafetensorsIndex::Row* row = row_of(entry.name);
      if (row != nullptr && row->file == i) continue;
      wrong.push_back(cat(files_[i].name, " holds ", formats::quoted_name(entry.name), ", which ",
                          row == nullptr ? "the index does not name"
                                         : cat("the index says is in ", files_[row->file].name)));
    }
  }
  if (wrong.empty()) return;
  throw DataError(
      problem(cat(wrong.size(), wrong.size() == 1 ? " tensor is" : " tensors are",
                  " not where the index says"))
          .at((directory_ / kModelIndexName).string())
          .must("name every tensor of its files, each in its file")
          .remedy(cat("The files are not all of one model: download or copy it again.\n",
                      capped_list(wrong))));
}

std::string weights_identity(const HuggingFaceFiles& files) {
  constexpr size_t kSampleBytes = 4096;
  std::string lines;
  for (const HuggingFaceFiles::NamedFile& named : files.files()) {
    Sha256 header;
    Sha256 samples;
    int64_t size_bytes = 0;
    for (const formats::SafetensorsEntry& entry : named.file.entries()) {
      interruption_point();
      header.update(cat(entry.name, " ", formats::dtype_name(entry.dtype), " [", join(entry.shape),
                        "] ", entry.offset_bytes, "\n"));
      const std::span<const std::byte> bytes = named.file.bytes(entry);
      const size_t count = std::min(kSampleBytes, bytes.size());
      samples.update(bytes.data() + (bytes.size() - count) / 2, count);
      size_bytes += entry.size_bytes;
    }
    lines += cat(named.name, ", ", size_bytes, " bytes of tensors, header ",
                 header.hex().substr(0, 16), ", samples ", samples.hex().substr(0, 16), "\n");
  }
  return lines;
}

bool has_huggingface_weights(const fs::path& directory) {
  // A link that leads nowhere counts: opening it says what is wrong with it.
  return is_taken(directory / kModelFileName) || is_taken(directory / kModelIndexName);
}

std::vector<std::string> side_files(const fs::path& directory) {
  // A link that leads nowhere is no file to be listed; it is told of instead.
  for (const fs::path& path : entries_of(directory, FailAs::data_error)) {
    if (tokenizer::is_tokenizer_file_name(path.filename().string())) {
      formats::refuse_broken_link(path);
    }
  }
  std::vector<std::string> names;
  for (const char* name : {"generation_config.json", "LICENSE"}) {
    if (is_file(directory / name)) names.emplace_back(name);
  }
  for (std::string& name : tokenizer::tokenizer_file_names(directory.string())) {
    names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string capped_list(const std::vector<std::string>& lines, size_t limit) {
  std::vector<std::string> shown;
  for (const std::string& line : lines) {
    if (shown.size() == limit) break;
    shown.push_back("  " + line);
  }
  if (lines.size() > limit) shown.push_back(cat("  ... and ", lines.size() - limit, " more"));
  return join(shown, "\n");
}

}  // namespace tptrain::checkpoint
