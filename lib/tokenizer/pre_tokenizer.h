// What a tokenizer.json calls its pre_tokenizer: cuts normalised text into pieces, which the model
// then works on one by one; some steps also change the text (a space before it, bytes written as
// characters).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/normalizer.h"
#include "tokenizer/piece_scanner.h"

namespace tptrain::tokenizer {

/// What becomes of the parts that a splitting pattern matches.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

class PreTokenizer {
 public:
  enum class PrependScheme { first, never, always };
  enum class Characters { numbers, spaces, punctuation };

  void add_split(Pattern pattern, SplitBehavior behavior, bool invert);
  void add_known_split(KnownPattern pattern);
  /// Each character of the kind is a match.
  void add_character_split(Characters characters, SplitBehavior behavior);
  /// Words and runs of what is neither word nor space are the pieces.
  void add_whitespace();
  void add_prefix_space();
  void add_byte_characters();
  void add_metaspace(const std::string& replacement, PrependScheme scheme, bool split);

  size_t size() const { return steps_.size(); }
  /// Such a last step can go where the model works on bytes.
  bool ends_with_byte_characters() const;
  void drop_last() { steps_.pop_back(); }
  /// Where the whole of it is one known pattern: that one.
  KnownPattern only_known_split() const;
  /// Whether it turns spaces into metaspaces; and whether it does nothing else but cut before them
  /// and at spaces.
  bool writes_metaspaces() const;
  bool only_cuts_words() const;

  struct Piece {
    size_t begin;
    size_t end;
    bool at_start;  // begins where the text given to the tokenizer begins
  };
  /// The pieces of `text`, as places in the text returned: `text` itself or `buffer`'s content.
  std::string_view cut(std::string_view text, bool at_start, std::string& buffer,
                       std::vector<Piece>& pieces) const;

 private:
  enum class Kind { split, prefix_space, byte_characters, metaspace };
  enum class Matcher { pattern, known, characters, words };
  struct Step {
    Kind kind;
    Matcher matcher = Matcher::pattern;
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;
    Pattern pattern = {};
    KnownPattern known = KnownPattern::none;
    uint8_t character_class = 0;
    std::string replacement = {};
    PrependScheme scheme = PrependScheme::always;
  };
  static void find(const Step& step, std::string_view text, std::vector<Span>& spans);
  static void split(const Step& step, std::string_view text, std::vector<Piece>& pieces);
  static void rewrite(const Step& step, std::string_view text, std::string& changed,
                      std::vector<Piece>& pieces);
  std::vector<Step> steps_;
};

}  // namespace tptrain::tokenizer
