// Where a large text may be cut so that its ids are those of its parts, whatever else it holds: by
// what is known of how a tokenizer finds its pieces. Private to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/bpe_loaders.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

class CutPlaces {
 public:
  enum class Pieces {
    unknown,    // nothing is known, nothing is cut
    gpt2,       // by the pattern of GPT-2
    cl100k,     // by those of Qwen and Llama 3
    metaspaces  // the metaspace that a space becomes goes with no character before it
  };
  CutPlaces() = default;
  /// `added`: what the tokenizer finds in a text before it cuts it into pieces.
  CutPlaces(Pieces pieces, const std::vector<AddedToken>& added);

  /// As Tokenizer::last_cut. The text need not be UTF-8.
  size_t last(std::string_view text) const;

 private:
  size_t last_line(std::string_view text) const;
  size_t last_space(std::string_view text) const;

  Pieces pieces_ = Pieces::unknown;
  bool within_spaces_ = false;
  std::array<bool, 256> begins_added_ = {};  // bytes
  std::array<bool, 256> ends_added_ = {};
};

/// As Tokenizer::skipped_behind_cut, of a tokenizer that is cut before spaces; none where its parts
/// do not come out as the whole in either way.
std::optional<size_t> skipped_behind_space(const Tokenizer& tokenizer);

}  // namespace tptrain::tokenizer
