// Where the tokens of a corpus go while they are made: into a token file; and, of a large corpus,
// first into parts of it, each with where the reading was when it ended, so that work which is
// interrupted goes on behind the last part.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/token_file.h"

namespace tptrain::data {

/// Where the reading of a corpus is, between two documents, or within one of a file of text.
struct ReadingPoint {
  size_t file = 0;         // the files before it are done
  int64_t rows = 0;        // of it, blank and malformed ones too
  int64_t text_bytes = 0;  // of it, unpacked
  int64_t lines = 0;       // in these
  bool in_document = false;
  // Of what was counted until then, as its owners have it:
  std::vector<int64_t> counts = {};
  std::vector<std::string> texts = {};
  std::vector<std::string> notes = {};
  bool operator==(const ReadingPoint&) const = default;
};

class TokenOutput {
 public:
  struct Options {
    std::filesystem::path stem;
    int64_t vocab_size = 0;
    std::string identity = {};
    formats::Labels labels = formats::Labels::none;
    bool in_parts = false;
  };
  /// Takes up the parts that stand there, as far as they are whole, one behind the other. `stem` is
  /// nobody else's (PreparingLock). Throws DataError where files cannot be created.
  explicit TokenOutput(Options options);
  ~TokenOutput();

  /// Where the parts that were taken up end; none where there are none.
  const std::optional<ReadingPoint>& begin() const { return begin_; }

  // As TokenFileWriter.
  void append(std::span<const int32_t> tokens) { append(tokens, tokens); }
  void append(std::span<const int32_t> tokens, std::span<const int32_t> labels);
  void end_document();
  int64_t tokens() const;

  /// What was appended since the last call is a part: it is durable when this returns. Nothing
  /// where the output is not in parts, or nothing was appended.
  void end_part(const ReadingPoint& point);
  /// The token file, durable; the parts are gone.
  formats::TokenFileHeader commit();

 private:
  struct Part {
    std::filesystem::path stem;
    int64_t tokens = 0;
    bool in_document = false;  // its last document goes on
  };
  std::filesystem::path part_stem(size_t number) const;
  std::string part_identity(size_t number) const;
  std::optional<ReadingPoint> take_up(size_t number);
  formats::TokenFileWriter& writer();
  void copy_part(const Part& part, formats::TokenFileWriter& to) const;

  Options options_;
  std::optional<ReadingPoint> begin_;
  std::vector<Part> parts_;
  int64_t tokens_in_parts_ = 0;
  std::unique_ptr<formats::TokenFileWriter> writer_;  // of the part that is being made, or of all
  bool document_is_open_ = false;                     // tokens since the last end of a document
};

/// Where the parts of a token file stand while it is made.
std::filesystem::path parts_directory(const std::filesystem::path& stem);

/// Removes parts that nobody has gone on with for a long time.
void remove_old_parts(const std::filesystem::path& directory);

}  // namespace tptrain::data
