// BPE tokenizers from the files that carry them: the tokenizer.json of the Hugging Face tokenizers
// library, GPT-2's vocab.json with merges.txt, and tiktoken rank files (Llama-3's tokenizer.model).
// All three give the same kind of tokenizer, with the ids that the library gives. Not here:
// sentencepiece models, and which file of a directory is to be read (tokenizer.h, make_tokenizer).
//
// The files are not trusted: whatever they hold, loading ends with a tokenizer or with a DataError
// that names the file and the fault, within memory that is a small multiple of the file's size.
// encode() takes UTF-8 only and throws DataError naming the first byte that is not.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

/// A string that is found in the text before the model sees it, and is one id.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = true;       // left out of decoded text on request, ordinary text on request
  bool normalized = false;   // looked for after normalisation instead of before
  bool single_word = false;  // only where no letter or digit touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

/// What the files beside a tokenizer say that changes its ids (tokenizer_config.h reads them).
struct BesideTokenizer {
  /// Tokens to add, in transformers' order; id -1: the one that the vocabulary has for it, else the
  /// next free one.
  std::vector<AddedToken> added = {};
  /// Where among them the pad_token of tokenizer.json's padding comes; nothing: it does not count.
  std::optional<size_t> pad_token_at = {};
  bool split_special_tokens = false;  // the strings of special tokens are ordinary text
  std::optional<bool> add_prefix_space = {};
  /// add_prefix_space counts for a byte-level pre-tokenizer, whatever it says itself:
  /// GPT2Tokenizer.
  bool sets_prefix_space = false;
  std::string place = {};  // for messages
};

/// `text` is the content of a tokenizer.json, `name` the path that errors name. `eos_token` is the
/// string whose id ends a document; "" picks the first that the vocabulary has of the usual names
/// (<|endoftext|>, <|end_of_text|>, </s>, <eos>, ...), and end_of_text() is -1 where it has none.
/// Throws DataError: damaged, of a kind that is not BPE, a part of it that is not built (named),
/// `eos_token` not in the vocabulary, or `beside` at odds with the file.
std::unique_ptr<Tokenizer> load_tokenizer_json(std::string_view text, const std::string& name,
                                               const std::string& eos_token,
                                               const BesideTokenizer& beside = {});

/// GPT-2's pair of files: byte-level, GPT-2's pattern, no normaliser. Where `beside` adds nothing,
/// `<|endoftext|>` is special if the vocabulary has it. `eos_token` as above.
std::unique_ptr<Tokenizer> load_vocab_and_merges(std::string_view vocab_json,
                                                 const std::string& vocab_name,
                                                 std::string_view merges_text,
                                                 const std::string& merges_name,
                                                 const std::string& eos_token,
                                                 const BesideTokenizer& beside = {});

/// What a tiktoken rank file does not say about itself.
struct TiktokenOptions {
  std::string pattern;              // the regular expression that cuts the text into pieces
  std::vector<AddedToken> special;  // ids behind the ranks
  std::string begin_of_text;        // put first where special tokens are asked for; "": none
  std::string eos_token;            // as above
  bool split_special_tokens = false;
};

/// Llama-3's: its pattern and its 256 special tokens with the names of Llama 3.1 and later.
TiktokenOptions llama3_tiktoken_options(int32_t ranks = 128000);

/// A rank file: one "base64 rank" a line, ranks counting from 0. See looks_like_tiktoken.
std::unique_ptr<Tokenizer> load_tiktoken_ranks(std::string_view text, const std::string& name,
                                               const TiktokenOptions& options);

/// True where a tokenizer.model begins as a rank file does and so is no sentencepiece model.
bool looks_like_tiktoken(std::string_view text);

}  // namespace tptrain::tokenizer
