// A file of text: one document. A large one goes in parts where the tokenizer can be given them;
// else it is held whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "data/document_writer.h"
#include "data/tokenize_files.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// Throws DataError where the file is not the one that was hashed.
void check_unchanged(const CorpusFile& file, const std::string& sha256);

class TextFile {
 public:
  /// Within the file: all before it is written.
  struct Place {
    int64_t bytes = 0;  // unpacked
    int64_t lines = 0;
    int32_t last_id = -1;
  };
  /// Called behind each batch of parts.
  using AtPlace = std::function<void(const Place&)>;

  TextFile(const CorpusFile& file, const tokenizer::Tokenizer& tokenizer, DocumentWriter& documents)
      : file_(file), tokenizer_(tokenizer), documents_(documents) {}

  /// All of it.
  void append(const AtPlace& at_place);
  /// What is behind `begin`.
  void resume(const Place& begin, const AtPlace& at_place);

 private:
  void append_from(int64_t begin, const AtPlace& at_place);
  bool append_parts();
  void check(std::string_view part);
  [[noreturn]] void refuse_utf8(std::string_view part) const;
  [[noreturn]] void refuse_large() const;

  const CorpusFile& file_;
  const tokenizer::Tokenizer& tokenizer_;
  DocumentWriter& documents_;
  Place place_ = {};
  std::string waiting_;
  size_t searched_ = 0;  // of waiting_, without finding a cut
  bool in_parts_ = false;
};

}  // namespace tptrain::data
