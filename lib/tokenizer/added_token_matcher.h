// Finds added tokens in text as the Hugging Face library does: leftmost first, of those that begin
// at one place the longest, then each token's own conditions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/bpe_loaders.h"

namespace tptrain::tokenizer {

class AddedTokenMatcher {
 public:
  AddedTokenMatcher();

  /// `spelling` is what is looked for: the content, or the content normalised. Of two tokens with
  /// one spelling the first counts.
  void add(const AddedToken& token, std::string_view spelling);
  bool empty() const { return tokens_.empty(); }

  struct Part {
    size_t begin;
    size_t end;
    int32_t id;  // -1: ordinary text
  };
  /// Appends the parts of `text` in order. `special_as_text`: what special tokens match is text
  /// (and hides what begins within it, as in the library).
  void split(std::string_view text, bool special_as_text, std::vector<Part>& parts) const;

 private:
  struct Node {  // of a trie over bytes; children are a list of siblings
    int32_t first_child = -1;
    int32_t next_sibling = -1;
    int32_t token = -1;
    unsigned char byte = 0;
  };
  int32_t child(int32_t node, unsigned char byte) const;
  /// The token that the longest spelling at `begin` belongs to, its length in `length`; or null.
  const AddedToken* longest_at(std::string_view text, size_t begin, size_t& length) const;

  std::vector<Node> nodes_;
  std::vector<int32_t> first_level_;  // 256 nodes below the root, or -1
  std::vector<AddedToken> tokens_;
};

}  // namespace tptrain::tokenizer
