#include "tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/cut_places.h"
#include "tokenizer/sentencepiece_file.h"
#include "tokenizer/string_finder.h"

namespace tptrain::tokenizer {

namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, the space inside pieces
constexpr size_t kLongestText = size_t{1} << 30;           // libsentencepiece counts in int
constexpr int32_t kMostAddedIds = 1 << 20;                 // beyond the model's own

std::string with_space_symbols(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      escaped += kSpaceSymbol;
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  size_t at = 0;
  while (at < piece.size()) {
    const bool space = piece.substr(at).starts_with(kSpaceSymbol);
    text += space ? ' ' : piece[at];
    at += space ? kSpaceSymbol.size() : 1;
  }
  return text;
}

/// Whether a space stands behind another character.
bool has_space_symbol_inside(std::string_view piece) {
  while (piece.starts_with(kSpaceSymbol)) piece.remove_prefix(kSpaceSymbol.size());
  return piece.find(kSpaceSymbol) != piece.npos;
}

/// What an id stands for.
struct Word {
  std::string entry;  // as the file spells it
  std::string text;   // its bytes in a decoded text
  bool special = false;
};

class SentencepieceTokenizer final : public Tokenizer {
 public:
  SentencepieceTokenizer(std::string_view model, const std::string& name,
                         const TokenizerConfig& config)
      : name_(name),
        file_(read_sentencepiece_file(model, name)),
        split_special_tokens_(config.split_special_tokens) {
    // Where an added token is to be found in the normalised text, as Hugging Face does it, the
    // normaliser's work (U+2581 for spaces and one in front) is done here. The four bytes say
    // normalizer_spec {add_dummy_prefix: false}: protobuf merges a message that comes twice.
    own_prefix_ = has_normalized_token(config);
    if (own_prefix_ && (file_.changes_characters || file_.remove_extra_whitespaces)) {
      throw DataError(
          problem("a token is to be found after normalisation (normalized: true), which is not "
                  "built for a model whose normaliser changes more than spaces")
              .at(config.place)
              .remedy("Give a tokenizer.json beside it: there it is."));
    }
    std::string bytes(model);
    if (own_prefix_) bytes.append("\x1A\x02\x18\x00", 4);
    load(bytes);
    for (const Piece& piece : file_.pieces) {
      Word word{piece.text, with_spaces(piece.text), false};
      if (piece.kind == PieceKind::byte) {
        word.text = std::string(1, static_cast<char>(byte_of_piece(piece.text)));
      }
      word.special = piece.kind == PieceKind::control || piece.kind == PieceKind::unknown;
      ids_.emplace(word.entry, static_cast<int32_t>(words_.size()));
      words_.push_back(std::move(word));
    }
    add_tokens(config);
    begin_of_text_ = named_or(config, "bos_token", processor_.bos_id());
    end_of_text_ = named_or(config, "eos_token", processor_.eos_id());
    adds_begin_ = config.add_bos_token.value_or(begin_of_text_ >= 0);
    adds_end_ = config.add_eos_token.value_or(false);
    if (adds_begin_ && begin_of_text_ < 0) missing_token("add_bos_token", "bos_token", config);
    if (adds_end_ && end_of_text_ < 0) missing_token("add_eos_token", "eos_token", config);
    hash_ = make_hash(model);
    find_cuts(config);
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(words_.size()); }
  int32_t end_of_text() const override { return end_of_text_; }

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& given) const override {
    check_text(text);
    EncodeOptions options = given;
    options.special_as_text = given.special_as_text || split_special_tokens_;
    std::vector<int32_t> ids;
    if (options.add_special && adds_begin_) ids.push_back(begin_of_text_);
    const auto found = [&](int32_t id) { ids.push_back(id); };
    plain_.split(
        text, options.special_as_text,
        [&](std::string_view part) { encode_part(part, options, ids); }, found);
    if (options.add_special && adds_end_) ids.push_back(end_of_text_);
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids, const DecodeOptions& options) const override {
    std::string text;
    for (const int32_t id : ids) {
      const Word* word = word_of(id);
      if (word == nullptr || (word->special && options.skip_special)) continue;
      text += word->text;
    }
    const bool prefixed = file_.add_dummy_prefix || file_.remove_extra_whitespaces;
    if (prefixed && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  std::string token(int32_t id) const override {
    const Word* word = word_of(id);
    return word == nullptr ? "" : word->entry;
  }
  int32_t find(std::string_view token) const override {
    const auto found = ids_.find(std::string(token));
    return found == ids_.end() ? -1 : found->second;
  }
  std::string hash() const override { return hash_; }
  size_t last_cut(std::string_view text) const override { return cuts_.last(text); }
  size_t skipped_behind_cut() const override { return skipped_behind_cut_; }

 private:
  void find_cuts(const TokenizerConfig& config) {
    const bool begins =
        std::none_of(file_.pieces.begin(), file_.pieces.end(),
                     [](const Piece& piece) { return has_space_symbol_inside(piece.text); });
    if (!begins || find(kSpaceSymbol) < 0 || file_.changes_characters ||
        file_.remove_extra_whitespaces)
      return;
    const std::optional<size_t> skipped = skipped_behind_space(*this);
    if (!skipped) return;
    skipped_behind_cut_ = *skipped;
    std::vector<AddedToken> added = config.added;
    for (const Word& word : words_) {
      if (word.special) added.push_back({.content = word.entry});
    }
    for (const auto& [key, named] : config.named) added.push_back(named);
    cuts_ = CutPlaces(CutPlaces::Pieces::metaspaces, added);
  }

  static bool has_normalized_token(const TokenizerConfig& config) {
    const auto normalized = [](const AddedToken& token) { return token.normalized; };
    return std::any_of(config.added.begin(), config.added.end(), normalized) ||
           std::any_of(config.named.begin(), config.named.end(),
                       [&](const NamedToken& named) { return normalized(named.token); });
  }

  const Word* word_of(int32_t id) const {
    const bool known = id >= 0 && static_cast<size_t>(id) < words_.size();
    return known ? &words_[id] : nullptr;
  }

  void load(const std::string& bytes) {
    try {
      const auto status = processor_.LoadFromSerializedProto(bytes);
      if (status.ok()) return;
      throw DataError(problem(cat("sentencepiece refuses this model: ", status.ToString()))
                          .at(name_)
                          .remedy("The file is damaged or of another kind; fetch it again."));
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      throw DataError(problem(cat("sentencepiece cannot load this model: ", e.what()))
                          .at(name_)
                          .remedy("The file is damaged or of another kind; fetch it again."));
    }
  }

  void add_tokens(const TokenizerConfig& config) {
    const int32_t own = static_cast<int32_t>(file_.pieces.size());
    std::map<int32_t, AddedToken> tokens;
    for (const AddedToken& token : config.added) {
      const std::string here = token.id < own ? file_.pieces[token.id].text : token.content;
      if (here != token.content) {
        throw DataError(problem(cat("id ", token.id, " is \"", here, "\" in ", name_, " but \"",
                                    token.content, "\" among the added tokens"))
                            .at(config.place)
                            .must("be the same token in both"));
      }
      const int32_t known = find(token.content);
      if (token.id >= own && known >= 0) {
        throw DataError(problem(cat("\"", token.content, "\" is the added token ", token.id,
                                    ", but also token ", known))
                            .at(config.place)
                            .must("have one id"));
      }
      if (token.id - own >= kMostAddedIds) {
        throw DataError(
            problem(cat("added token \"", token.content, "\" has the id ", token.id))
                .at(config.place)
                .must(cat("lie within ", kMostAddedIds, " behind the ", own, " of the model")));
      }
      tokens.emplace(token.id, token);
      ids_.emplace(token.content, token.id);
    }
    for (const auto& [key, named] : config.named) {
      AddedToken token = named;
      token.id = find(named.content);
      if (token.id < 0) {
        throw DataError(problem(cat(key, " is \"", named.content,
                                    "\", which is neither in the model nor among the added tokens"))
                            .at(config.place)
                            .remedy("Give its id in added_tokens.json."));
      }
      token.special = true;
      if (!tokens.emplace(token.id, token).second) tokens[token.id].special = true;
    }
    if (config.named.empty()) {  // the model alone: its own special symbols
      for (int32_t id = 0; id < own; ++id) {
        if (!words_[id].special) continue;
        AddedToken token;
        token.id = id;
        token.content = words_[id].entry;
        tokens.emplace(id, token);
      }
    }
    for (const auto& [id, token] : tokens) add_token(token, config);
  }

  void add_token(const AddedToken& token, const TokenizerConfig& config) {
    if (token.lstrip || token.rstrip || token.single_word) {
      throw DataError(problem(cat("the token \"", token.content, "\" has ",
                                  token.lstrip   ? "lstrip"
                                  : token.rstrip ? "rstrip"
                                                 : "single_word",
                                  ", which is not built for tokenizer.model"))
                          .at(config.place)
                          .remedy("Give a tokenizer.json beside it: there it is."));
    }
    if (static_cast<size_t>(token.id) >= words_.size()) words_.resize(token.id + 1);
    words_[token.id] = {token.content, token.content, token.special};
    if (!token.normalized) {
      plain_.add({token.content, token.id, token.special});
      return;
    }
    // Hugging Face normalises the string of such a token too: with its first space.
    const std::string prefix = file_.add_dummy_prefix ? std::string(kSpaceSymbol) : "";
    normalized_.add({prefix + with_space_symbols(token.content), token.id, token.special});
  }

  int32_t named_or(const TokenizerConfig& config, const char* key, int32_t otherwise) const {
    const std::string content = config.token(key);
    return content.empty() ? otherwise : find(content);
  }

  [[noreturn]] void missing_token(const char* flag, const char* key,
                                  const TokenizerConfig& config) const {
    throw DataError(problem(cat(flag, " is true, but there is no ", key))
                        .at(config.place)
                        .remedy(cat("Name it in tokenizer_config.json: \"", key, "\".")));
  }

  void check_text(std::string_view text) const {
    const size_t bad = first_invalid_utf8(text);
    if (bad != std::string_view::npos) {
      throw DataError(problem(cat("the byte at offset ", bad, " of the text is no UTF-8"))
                          .must("be UTF-8 for this tokenizer")
                          .remedy("Convert the text, for example with iconv."));
    }
    if (text.size() > kLongestText) {
      throw DataError(problem(cat("a text of ", human_bytes(static_cast<int64_t>(text.size()))))
                          .must(cat("be at most ", human_bytes(kLongestText), " long"))
                          .remedy("Cut it into documents."));
    }
  }

  /// What stands between added tokens.
  void encode_part(std::string_view part, const EncodeOptions& options,
                   std::vector<int32_t>& ids) const {
    if (part.empty()) return;
    if (!own_prefix_) {
      append_pieces(part, ids);
      return;
    }
    std::string text = file_.add_dummy_prefix ? std::string(kSpaceSymbol) : "";
    text += with_space_symbols(part);
    normalized_.split(
        text, options.special_as_text,
        [&](std::string_view between) { append_pieces(between, ids); },
        [&](int32_t id) { ids.push_back(id); });
  }

  void append_pieces(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    std::vector<int> pieces;
    const auto status = processor_.Encode(text, &pieces);
    if (!status.ok()) {
      throw DataError(problem(cat("sentencepiece cannot encode: ", status.ToString())).at(name_));
    }
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  std::string make_hash(std::string_view model) const {
    Sha256 hash;
    hash.update(cat("tptrain sentencepiece 1 ", model.size(), "\n"));
    hash.update(model);
    for (size_t id = 0; id < words_.size(); ++id) {
      const Word& word = words_[id];
      if (!word.special && id < file_.pieces.size()) continue;
      hash.update(cat(id, " ", word.entry.size(), " ", word.entry, " ", word.special, "\n"));
    }
    for (const bool flag : {adds_begin_, adds_end_, !normalized_.empty(), !plain_.empty()}) {
      hash.update(flag ? "1" : "0");
    }
    hash.update(cat(begin_of_text_, " ", end_of_text_));
    if (split_special_tokens_) hash.update(" split special tokens");
    return hash.hex();
  }

  std::string name_;
  SentencepieceFile file_;
  bool split_special_tokens_ = false;
  bool own_prefix_ = false;
  sentencepiece::SentencePieceProcessor processor_;
  std::vector<Word> words_;  // by id; an entry of "" is a hole between added tokens
  std::unordered_map<std::string, int32_t> ids_;
  StringFinder plain_;       // looked for in the text
  StringFinder normalized_;  // looked for behind the first space, spaces turned into U+2581
  int32_t begin_of_text_ = -1;
  int32_t end_of_text_ = -1;
  bool adds_begin_ = false;
  bool adds_end_ = false;
  std::string hash_;
  CutPlaces cuts_;
  size_t skipped_behind_cut_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(std::string_view model, const std::string& name,
                                              const TokenizerConfig& config) {
  // The two tokenizers of Hugging Face disagree with one another about what follows a special token
  // then; guessing would train on wrong ids.
  if (config.legacy.has_value() && !*config.legacy) {
    throw DataError(
        problem("tokenizer_config.json has legacy: false, which is not built for tokenizer.model")
            .at(config.place)
            .remedy("Give a tokenizer.json beside it: load the tokenizer with transformers and "
                    "save it (save_pretrained)."));
  }
  return std::make_unique<SentencepieceTokenizer>(model, name, config);
}

}  // namespace tptrain::tokenizer
