// Byte pair encoding of one piece of text: its characters (or bytes) become ids, and the pair with
// the lowest rank is joined again and again. No text handling here: pieces come ready made.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tptrain::tokenizer {

/// Strings and their ids, both ways; ids may have gaps.
class Vocabulary {
 public:
  Vocabulary();
  void reserve(size_t entries);
  /// False where the string or the id is there already.
  bool add(std::string token, int32_t id);
  int32_t find(std::string_view token) const;  // -1: none
  bool has(int32_t id) const;
  /// "" where there is none.
  const std::string& token(int32_t id) const;
  size_t size() const { return tokens_.size(); }
  int32_t end_id() const { return static_cast<int32_t>(entry_of_id_.size()); }

 private:
  void grow(size_t slots);
  std::vector<std::string> tokens_;
  std::vector<int32_t> ids_;
  std::vector<int32_t> entry_of_id_;
  std::vector<int32_t> slots_;  // entries, by hash; -1: free
};

struct BpeOptions {
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is an entry is that entry
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
};

struct Merge {
  int32_t left;
  int32_t right;
  int32_t product;
};

class BpeModel {
 public:
  /// `merges` in the order of their ranks; of a pair given twice the last counts. Every product is
  /// longer than its parts (which the loaders check).
  BpeModel(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options);

  /// True where pieces can be given as bytes instead of bytes written as characters: every byte of
  /// UTF-8 text then has its own entry. To be called once, before pieces are encoded.
  bool use_bytes();

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const BpeOptions& options() const { return options_; }
  /// Whether no metaspace goes with a character before it, in a piece of any length.
  bool metaspace_begins() const { return metaspace_begins_ && !options_.ignore_merges; }

  /// Results of pieces, and room to work in; for one thread at a time.
  class Scratch;
  struct ScratchDelete {
    void operator()(Scratch* scratch) const;
  };
  static std::unique_ptr<Scratch, ScratchDelete> new_scratch();
  /// What it holds beyond its fixed size: a long piece leaves some thirty bytes a byte.
  static size_t bytes_of(const Scratch& scratch);

  /// Appends the ids of `piece`, which is not empty.
  void encode(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const;

 private:
  struct Joined {
    uint32_t rank;
    int32_t product;
  };
  struct Slot {
    uint64_t pair;
    Joined joined;
  };
  Joined joined(int32_t left, int32_t right) const;
  void encode_cached(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch,
                     bool whole_may_be_entry) const;
  void append_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;
  int32_t unknown_id(std::string_view character) const;
  void merge_short(std::vector<int32_t>& symbols, Scratch& scratch) const;
  void merge_long(std::vector<int32_t>& symbols, Scratch& scratch) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::vector<Slot> pairs_;
  bool bytes_ = false;
  std::vector<int32_t> id_of_byte_;  // of bytes, or of ASCII characters; -1: none
  std::vector<int32_t> fallback_;    // ids of <0x00>..; -1: none
  std::optional<Vocabulary> raw_;    // entries as bytes, for ignore_merges
  bool metaspace_begins_ = false;    // no entry made by merges has a metaspace behind another
                                     // character: long pieces fall apart before them
};

}  // namespace tptrain::tokenizer
