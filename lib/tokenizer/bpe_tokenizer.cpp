#include "tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <new>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"
#include "tokenizer/cut_places.h"

namespace tptrain::tokenizer {

namespace {

// Places in a piece are 32 bits wide, and a normaliser may let the text grow.
constexpr size_t kTextLimit = size_t{1} << 28;

// In this order, of those that are special.
constexpr std::array kUsualEnds = {"<|endoftext|>", "<|end_of_text|>",       "</s>",      "<eos>",
                                   "<|eos|>",       "<｜end▁of▁sentence｜>", "<|im_end|>"};

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeParts parts)
      : normalizer_(std::move(parts.normalizer)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        model_(std::move(parts.vocabulary), parts.merges, std::move(parts.options)),
        before_(std::move(parts.before)),
        behind_(std::move(parts.behind)),
        decoder_(std::move(parts.decoder)),
        split_special_tokens_(parts.split_special_tokens) {
    add_tokens(parts);
    hash_ = hash_of(parts);
    for (const std::vector<int32_t>* ids : {&before_, &behind_}) {
      for (const int32_t id : *ids) check_special_id(id, parts.name);
    }
    end_of_text_ = find_end(parts);
    if (pre_tokenizer_.ends_with_byte_characters() && model_.use_bytes()) {
      pre_tokenizer_.drop_last();
    }
    known_split_ = pre_tokenizer_.only_known_split();
    find_cuts(parts);
  }

  int64_t vocab_size() const override { return end_id_; }
  int32_t end_of_text() const override { return end_of_text_; }

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    if (text.size() > kTextLimit) {
      throw DataError(problem(cat("text of ", human_bytes(static_cast<int64_t>(text.size()))))
                          .must(cat("be at most ", human_bytes(kTextLimit), " in one piece"))
                          .remedy("Cut it into documents."));
    }
    require_utf8(text);
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3 + before_.size() + behind_.size());
    if (options.add_special) ids = before_;
    const bool special_as_text = options.special_as_text || split_special_tokens_;
    Borrowed room(*this);
    std::vector<AddedTokenMatcher::Part> parts;
    as_written_.split(text, special_as_text, parts);
    for (const AddedTokenMatcher::Part& part : parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      encode_text(text.substr(part.begin, part.end - part.begin), part.begin == 0, special_as_text,
                  *room, ids);
    }
    if (options.add_special) ids.insert(ids.end(), behind_.begin(), behind_.end());
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids, const DecodeOptions& options) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const int32_t id : ids) {
      if (id < 0 || id >= end_id_ || !known_[id]) continue;
      if (options.skip_special && special_[id]) continue;
      tokens.push_back(token(id));
    }
    return decoder_.decode(std::move(tokens));
  }

  std::string token(int32_t id) const override {
    const auto added = added_by_id_.find(id);
    return added != added_by_id_.end() ? added->second : model_.vocabulary().token(id);
  }

  int32_t find(std::string_view token) const override {
    const auto added = added_by_content_.find(std::string(token));
    return added != added_by_content_.end() ? added->second : model_.vocabulary().find(token);
  }

  std::string hash() const override { return hash_; }

  size_t last_cut(std::string_view text) const override { return cuts_.last(text); }
  size_t skipped_behind_cut() const override { return skipped_behind_cut_; }

 private:
  CutPlaces::Pieces known_pieces() const {
    using Pieces = CutPlaces::Pieces;
    if (known_split_ != KnownPattern::none) {
      if (!normalizer_.keeps_lines_apart()) return Pieces::unknown;
      return known_split_ == KnownPattern::gpt2 ? Pieces::gpt2 : Pieces::cl100k;
    }
    // A space is cut at by a pre-tokenizer that is left none.
    const bool written = normalizer_.replaces_spaces() || pre_tokenizer_.writes_metaspaces();
    return written && model_.metaspace_begins() && normalizer_.only_writes_metaspaces() &&
                   pre_tokenizer_.only_cuts_words()
               ? Pieces::metaspaces
               : Pieces::unknown;
  }

  void find_cuts(const BpeParts& parts) {
    const CutPlaces::Pieces pieces = known_pieces();
    if (pieces == CutPlaces::Pieces::metaspaces) {
      const std::optional<size_t> skipped = skipped_behind_space(*this);
      if (!skipped) return;
      skipped_behind_cut_ = *skipped;
    }
    cuts_ = CutPlaces(pieces, parts.added);
  }

  // What one thread needs to encode; kept between calls, for the pieces it has seen.
  struct Room {
    std::unique_ptr<BpeModel::Scratch, BpeModel::ScratchDelete> scratch = BpeModel::new_scratch();
    std::string normalised, cut;
    std::vector<PreTokenizer::Piece> pieces;
    std::vector<AddedTokenMatcher::Part> parts;
    size_t bytes() const {
      return BpeModel::bytes_of(*scratch) + normalised.capacity() + cut.capacity() +
             pieces.capacity() * sizeof pieces[0] + parts.capacity() * sizeof parts[0];
    }
  };
  class Borrowed {
   public:
    explicit Borrowed(const BpeTokenizer& owner) : owner_(owner) {
      const std::lock_guard lock(owner_.rooms_mutex_);
      if (!owner_.rooms_.empty()) {
        room_ = std::move(owner_.rooms_.back());
        owner_.rooms_.pop_back();
      }
      if (!room_) room_ = std::make_unique<Room>();
    }
    ~Borrowed() {
      // One huge text does not keep its buffers for ever.
      if (room_->bytes() > (size_t{1} << 25)) return;
      try {
        const std::lock_guard lock(owner_.rooms_mutex_);
        owner_.rooms_.push_back(std::move(room_));
      } catch (const std::bad_alloc&) {  // on the way out of one: then it is not kept
      }
    }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    Room& operator*() { return *room_; }

   private:
    const BpeTokenizer& owner_;
    std::unique_ptr<Room> room_;
  };

  void encode_text(std::string_view text, bool at_start, bool special_as_text, Room& room,
                   std::vector<int32_t>& ids) const {
    const std::string_view normalised = normalizer_.apply(text, room.normalised, at_start);
    room.parts.clear();
    normalised_.split(normalised, special_as_text, room.parts);
    for (const AddedTokenMatcher::Part& part : room.parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      encode_pieces(normalised.substr(part.begin, part.end - part.begin),
                    at_start && part.begin == 0, room, ids);
    }
  }

  void encode_pieces(std::string_view text, bool at_start, Room& room,
                     std::vector<int32_t>& ids) const {
    if (known_split_ != KnownPattern::none) {
      const std::vector<uint8_t>& classes = character_classes();
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = piece_end(known_split_, text, begin, classes);
        model_.encode(text.substr(begin, end - begin), ids, *room.scratch);
        begin = end;
      }
      return;
    }
    const std::string_view cut = pre_tokenizer_.cut(text, at_start, room.cut, room.pieces);
    for (const PreTokenizer::Piece& piece : room.pieces) {
      model_.encode(cut.substr(piece.begin, piece.end - piece.begin), ids, *room.scratch);
    }
  }

  void add_tokens(const BpeParts& parts) {
    end_id_ = model_.vocabulary().end_id();
    for (const AddedToken& token : parts.added) {
      if (token.id < 0 || token.content.empty()) continue;
      if (!added_by_content_.emplace(token.content, token.id).second) {
        throw DataError(problem(cat("the token ", token.content, " is given twice"))
                            .at(cat(parts.name, ": added_tokens"))
                            .must("be given once"));
      }
      const std::string& other = model_.vocabulary().token(token.id);
      const bool free = added_by_id_.emplace(token.id, token.content).second;
      if (!free || (model_.vocabulary().has(token.id) && other != token.content)) {
        throw DataError(problem(cat("the token ", token.content, " has the id ", token.id,
                                    ", which ", free ? other : added_by_id_[token.id], " has"))
                            .at(cat(parts.name, ": added_tokens"))
                            .must("have an id of its own"));
      }
      end_id_ = std::max(end_id_, token.id + 1);
    }
    known_.assign(static_cast<size_t>(end_id_), false);
    special_.assign(static_cast<size_t>(end_id_), false);
    for (int32_t id = 0; id < end_id_; ++id) {
      known_[id] = model_.vocabulary().has(id) || added_by_id_.contains(id);
    }
    // Special ones first, as in the library: of two that normalise alike the first counts.
    for (const bool special : {true, false}) {
      for (const AddedToken& token : parts.added) {
        if (token.special != special || token.id < 0 || token.content.empty()) continue;
        special_[token.id] = special;
        add_to_matcher(token, parts.name);
      }
    }
  }

  void add_to_matcher(const AddedToken& token, const std::string& name) {
    if (!token.normalized) return as_written_.add(token, token.content);
    std::string buffer;
    bool at_start = true;
    const std::string_view spelling = normalizer_.apply(token.content, buffer, at_start);
    if (spelling.empty()) {
      throw DataError(problem(cat("the token ", token.content, " is normalised to nothing"))
                          .at(cat(name, ": added_tokens"))
                          .must("keep a character, or be \"normalized\": false"));
    }
    normalised_.add(token, spelling);
  }

  void check_special_id(int32_t id, const std::string& name) const {
    if (id >= 0 && id < end_id_ && known_[id]) return;
    throw DataError(problem(cat("the post-processor adds the id ", id))
                        .at(cat(name, ": post_processor"))
                        .must("add ids of the vocabulary"));
  }

  int32_t find_end(const BpeParts& parts) const {
    if (!parts.eos_token.empty()) {
      const int32_t id = find(parts.eos_token);
      if (id >= 0) return id;
      throw DataError(problem(cat("the end of text is \"", parts.eos_token, "\""))
                          .at(parts.name)
                          .must("be an entry of the vocabulary")
                          .remedy("Correct eos_token in tokenizer_config.json."));
    }
    for (const char* usual : kUsualEnds) {
      const int32_t id = find(usual);
      if (id >= 0 && special_[id]) return id;
    }
    return -1;
  }

  std::string hash_of(const BpeParts& parts) const {
    // Lengths before strings: no two tokenizers give one stream of bytes.
    Sha256 hash;
    hash.update("tptrain bpe tokenizer 1\n");
    const Vocabulary& vocabulary = model_.vocabulary();
    for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
      if (!vocabulary.has(id)) continue;
      const std::string& token = vocabulary.token(id);
      hash.update(std::to_string(id) + " " + std::to_string(token.size()) + " ");
      hash.update(token);
    }
    std::string numbers = "\nmerges\n";
    for (const Merge& merge : parts.merges) {
      numbers += std::to_string(merge.left) + " " + std::to_string(merge.right) + "\n";
    }
    hash.update(numbers);
    for (const AddedToken& token : parts.added) {
      hash.update("added " + std::to_string(token.id) + " " + std::to_string(token.content.size()) +
                  " " + token.content + " " + (token.special ? "s" : "-") +
                  (token.normalized ? "n" : "-") + (token.single_word ? "w" : "-") +
                  (token.lstrip ? "l" : "-") + (token.rstrip ? "r" : "-") + "\n");
    }
    if (parts.split_special_tokens) hash.update("split special tokens\n");
    hash.update("configuration\n" + parts.configuration);
    return hash.hex();
  }

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  std::vector<int32_t> before_;
  std::vector<int32_t> behind_;
  TokenDecoder decoder_;
  bool split_special_tokens_;
  KnownPattern known_split_ = KnownPattern::none;
  CutPlaces cuts_;
  size_t skipped_behind_cut_ = 0;
  AddedTokenMatcher as_written_;  // looked for before normalisation
  AddedTokenMatcher normalised_;  // looked for after it
  std::unordered_map<std::string, int32_t> added_by_content_;
  std::unordered_map<int32_t, std::string> added_by_id_;
  std::vector<bool> known_;
  std::vector<bool> special_;
  int32_t end_id_ = 0;
  int32_t end_of_text_ = -1;
  std::string hash_;
  mutable std::mutex rooms_mutex_;
  mutable std::vector<std::unique_ptr<Room>> rooms_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeParts parts) {
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace tptrain::tokenizer
