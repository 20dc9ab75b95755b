// The files of a model directory as Hugging Face's libraries write it: which safetensors files hold
// its tensors, opened and checked against the index. Knows no model: which tensors there must be is
// for huggingface_source.h.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"
#include "formats/safetensors_index.h"

namespace tptrain::checkpoint {

constexpr const char* kModelFileName = "model.safetensors";
constexpr const char* kModelIndexName = "model.safetensors.index.json";

/// model.safetensors, or, where there is none, model.safetensors.index.json and the files it names:
/// the order in which transformers looks. With model.safetensors an index is not looked at.
class HuggingFaceFiles {
 public:
  struct NamedFile {
    std::string name;
    formats::SafetensorsFile file;
  };
  /// One stored tensor; points into the files, valid as long as they.
  struct Stored {
    size_t file = 0;
    const formats::SafetensorsEntry* entry = nullptr;
  };

  /// Throws DataError: neither of both is there (saying what to do about a pytorch_model.bin), a
  /// file that is broken, and, all at once, files that are missing, tensors that are not in the
  /// file the index says, and tensors of a file that the index does not name.
  explicit HuggingFaceFiles(const std::filesystem::path& directory);
  /// The one file of this name. Throws DataError: it is missing or broken.
  HuggingFaceFiles(const std::filesystem::path& directory, const std::string& file);

  const std::filesystem::path& directory() const { return directory_; }
  const std::vector<NamedFile>& files() const { return files_; }
  const std::map<std::string, Stored>& tensors() const { return tensors_; }
  /// Where the model has one.
  const std::optional<formats::SafetensorsIndex>& index() const { return index_; }
  /// An index lies beside the model.safetensors that was taken.
  bool ignored_index() const { return ignored_index_; }

 private:
  void open(const std::string& name);
  void check_index() const;

  std::filesystem::path directory_;
  std::optional<formats::SafetensorsIndex> index_;
  bool ignored_index_ = false;
  std::vector<NamedFile> files_;
  std::map<std::string, Stored> tensors_;
};

/// What tells these weights from others, without reading them whole: a line a file, with its name,
/// its size, the hash of its tensors' names, types, shapes and places, and the hash of a page out
/// of the middle of each tensor. Another revision of a model differs in it.
std::string weights_identity(const HuggingFaceFiles& files);

/// Whether a directory holds the weights of a model in this form, whole or not.
bool has_huggingface_weights(const std::filesystem::path& directory);

/// The files of `directory` that go along with a model, relative to it, links followed:
/// generation settings, licence, and those of tokenizer_file_names. Not config.json, and no
/// weights. Throws DataError where one is a link that leads nowhere.
std::vector<std::string> side_files(const std::filesystem::path& directory);

/// "  first\n  second\n  ... and 7 more": the text of a list of complaints, at most `limit` lines.
std::string capped_list(const std::vector<std::string>& lines, size_t limit = 20);

}  // namespace tptrain::checkpoint
