// Vocabularies without a tokenizer.json: GPT-2's pair of files and tiktoken's ranks.
#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/bpe_assembly.h"
#include "tokenizer/bpe_loaders.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace tptrain::tokenizer {

namespace {

// Llama-3's longest has 128 bytes. A token of n bytes takes n look-ups of up to n bytes.
constexpr size_t kRankTokenLimit = 512;
constexpr size_t kRankFileLimit = size_t{256} << 20;

std::string_view next_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// False where `line` is no base64 with its padding.
bool decode_base64(std::string_view line, std::string& bytes) {
  static const std::array<int8_t, 256> digits = [] {
    std::array<int8_t, 256> table;
    table.fill(-1);
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < kAlphabet.size(); ++i) {
      table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
    }
    return table;
  }();
  bytes.clear();
  if (line.empty() || line.size() % 4 != 0) return false;
  for (int padding = 0; padding < 2 && line.ends_with('='); ++padding) line.remove_suffix(1);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : line) {
    const int digit = digits[static_cast<unsigned char>(c)];
    if (digit < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  return true;
}

// "aGVsbG8= 1234"
bool read_rank_line(std::string_view line, std::string& bytes, int32_t& rank) {
  const size_t space = line.find(' ');
  if (space == line.npos || !decode_base64(line.substr(0, space), bytes) || bytes.empty()) {
    return false;
  }
  const char* const end = line.data() + line.size();
  const auto [stopped, error] = std::from_chars(line.data() + space + 1, end, rank);
  return error == std::errc() && stopped == end && rank >= 0;
}

struct Ranks {
  std::vector<std::string> tokens;  // bytes, by rank
  Vocabulary bytes;                 // the same for looking up
};

Ranks read_ranks(std::string_view text, const std::string& name) {
  Ranks ranks;
  std::string bytes;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = next_line(text);
    if (line.empty()) continue;
    int32_t rank = -1;
    const auto refuse = [&](const std::string& what, const char* must) {
      throw DataError(problem(what).at(cat(name, ":", number)).must(must));
    };
    if (!read_rank_line(line, bytes, rank)) {
      refuse(cat("line of ", line.size(), " bytes that is no rank"), "be \"base64 rank\"");
    }
    if (bytes.size() > kRankTokenLimit) {
      refuse(cat("token of ", bytes.size(), " bytes"), "have at most 512 bytes");
    }
    if (rank != static_cast<int32_t>(ranks.tokens.size())) {
      refuse(cat("rank ", rank, " behind ", ranks.tokens.size(), " ranks"),
             "count from 0 without a gap");
    }
    if (!ranks.bytes.add(bytes, rank)) {
      refuse(cat("the token of rank ", ranks.bytes.find(bytes), " again"), "be given once");
    }
    ranks.tokens.push_back(bytes);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    if (ranks.bytes.find(std::string_view(&c, 1)) >= 0) continue;
    throw DataError(problem(cat("no rank for the single byte ", byte))
                        .at(name)
                        .must("have one for each of the 256 bytes"));
  }
  return ranks;
}

// A rank file says which tokens are joined first, not of what. As the library's own conversion
// does, every way to cut a token in two tokens is a merge; those of one token in the order of their
// parts' ranks.
std::vector<Merge> merges_of(const Ranks& ranks) {
  std::vector<Merge> merges;
  for (size_t rank = 0; rank < ranks.tokens.size(); ++rank) {
    const std::string_view token = ranks.tokens[rank];
    const size_t first = merges.size();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const int32_t left = ranks.bytes.find(token.substr(0, cut));
      if (left < 0) continue;
      const int32_t right = ranks.bytes.find(token.substr(cut));
      if (right >= 0) merges.push_back({left, right, static_cast<int32_t>(rank)});
    }
    std::sort(merges.begin() + static_cast<ptrdiff_t>(first), merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }
  return merges;
}

}  // namespace

std::unique_ptr<Tokenizer> load_vocab_and_merges(
    std::string_view vocab_json, const std::string& vocab_name, std::string_view merges_text,
    const std::string& merges_name, const std::string& eos_token, const BesideTokenizer& beside) {
  BpeParts parts;
  parts.name = vocab_name;
  parts.eos_token = eos_token;
  parts.vocabulary = make_vocabulary(parse_vocab_json(vocab_json, vocab_name), vocab_name);
  if (const size_t bad = first_invalid_utf8(merges_text); bad != std::string_view::npos) {
    throw DataError(
        problem(cat("the byte at offset ", bad)).at(merges_name).must("belong to UTF-8 text"));
  }
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t number = 1; !merges_text.empty(); ++number) {
    const std::string line(next_line(merges_text));
    if (line.starts_with("#version")) continue;
    std::pair<std::string, std::string> pair;
    if (!split_merge(line, pair)) {
      throw DataError(problem(cat("\"", shown(line), "\""))
                          .at(cat(merges_name, ":", number))
                          .must("be two tokens with one space between them"));
    }
    pairs.push_back(std::move(pair));
  }
  parts.merges = make_merges(pairs, parts.vocabulary, "", merges_name);
  const bool prefix = beside.add_prefix_space.value_or(false);
  if (prefix) parts.pre_tokenizer.add_prefix_space();
  parts.pre_tokenizer.add_known_split(KnownPattern::gpt2);
  parts.pre_tokenizer.add_byte_characters();
  parts.decoder.add_byte_level();
  add_tokens_beside(beside, parts.vocabulary, parts.added);
  const int32_t end = parts.vocabulary.find("<|endoftext|>");
  if (parts.added.empty() && end >= 0) {
    parts.added.push_back({.id = end, .content = "<|endoftext|>"});
  }
  parts.split_special_tokens = beside.split_special_tokens;
  parts.configuration = prefix ? "gpt2 with a prefix space" : "gpt2";
  return make_bpe_tokenizer(std::move(parts));
}

TiktokenOptions llama3_tiktoken_options(int32_t ranks) {
  TiktokenOptions options;
  options.pattern = kLlama3Pattern;
  options.begin_of_text = "<|begin_of_text|>";
  options.eos_token = "<|end_of_text|>";
  const std::vector<std::string> named = {"<|begin_of_text|>",
                                          "<|end_of_text|>",
                                          "<|reserved_special_token_0|>",
                                          "<|reserved_special_token_1|>",
                                          "<|finetune_right_pad_id|>",
                                          "<|reserved_special_token_2|>",
                                          "<|start_header_id|>",
                                          "<|end_header_id|>",
                                          "<|eom_id|>",
                                          "<|eot_id|>",
                                          "<|python_tag|>"};
  int32_t id = ranks;
  for (const std::string& name : named) options.special.push_back({.id = id++, .content = name});
  for (int reserved = 3; reserved <= 247; ++reserved) {
    options.special.push_back(
        {.id = id++, .content = cat("<|reserved_special_token_", reserved, "|>")});
  }
  return options;
}

std::unique_ptr<Tokenizer> load_tiktoken_ranks(std::string_view text, const std::string& name,
                                               const TiktokenOptions& options) {
  if (text.size() > kRankFileLimit) {
    throw DataError(problem(cat("file of ", human_bytes(static_cast<int64_t>(text.size()))))
                        .at(name)
                        .must(cat("have at most ", human_bytes(kRankFileLimit))));
  }
  const Ranks ranks = read_ranks(text, name);
  BpeParts parts;
  parts.name = name;
  parts.eos_token = options.eos_token;
  parts.vocabulary.reserve(ranks.tokens.size());
  for (size_t rank = 0; rank < ranks.tokens.size(); ++rank) {
    parts.vocabulary.add(byte_characters(ranks.tokens[rank]), static_cast<int32_t>(rank));
  }
  parts.merges = merges_of(ranks);
  parts.options.ignore_merges = true;
  const KnownPattern known = known_pattern(options.pattern);
  if (known != KnownPattern::none) {
    parts.pre_tokenizer.add_known_split(known);
  } else {
    parts.pre_tokenizer.add_split(Pattern::of_regex(options.pattern, name), SplitBehavior::isolated,
                                  false);
  }
  parts.pre_tokenizer.add_byte_characters();
  parts.decoder.add_byte_level();
  parts.added = options.special;
  parts.split_special_tokens = options.split_special_tokens;
  if (!options.begin_of_text.empty()) {
    const auto begin = std::find_if(
        options.special.begin(), options.special.end(),
        [&](const AddedToken& token) { return token.content == options.begin_of_text; });
    if (begin == options.special.end()) {
      throw DataError(problem(cat("the begin of text is \"", options.begin_of_text, "\""))
                          .at(name)
                          .must("be one of the special tokens"));
    }
    parts.before = {begin->id};
  }
  parts.configuration = cat("tiktoken ", options.pattern, " begin ", options.begin_of_text);
  return make_bpe_tokenizer(std::move(parts));
}

bool looks_like_tiktoken(std::string_view text) {
  text = text.substr(0, 4096);
  std::string bytes;
  int32_t rank = -1;
  return read_rank_line(next_line(text), bytes, rank) && rank == 0;
}

}  // namespace tptrain::tokenizer
