#include "tokenizer/tokenizer_json_parts.h"

#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

namespace {

constexpr size_t kStepLimit = 64;       // of a Sequence, those within it included
constexpr size_t kContentLimit = 1024;  // bytes that a replacement puts in

[[noreturn]] void unknown_type(const JsonObject& section, const std::string& type,
                               const char* known) {
  throw DataError(problem(cat("type \"", type, "\""))
                      .at(section.where())
                      .must(cat("be one of those that are built: ", known)));
}

void check_steps(const JsonObject& section, size_t steps) {
  if (steps <= kStepLimit) return;
  throw DataError(problem(cat("more than ", kStepLimit, " steps in sequence"))
                      .at(section.where())
                      .must(cat("have at most ", kStepLimit)));
}

std::string short_text(const JsonObject& section, const std::string& key) {
  std::string text = section.text(key);
  if (text.size() <= kContentLimit) return text;
  throw DataError(problem(cat("\"", key, "\" of ", text.size(), " bytes"))
                      .at(section.where())
                      .must(cat("have at most ", kContentLimit)));
}

Pattern read_pattern(const JsonObject& section) {
  const JsonObject pattern = section.object("pattern");
  pattern.only({"String", "Regex"});
  if (pattern.has("Regex") == pattern.has("String")) {
    throw DataError(problem("neither or both of \"Regex\" and \"String\"")
                        .at(pattern.where())
                        .must("have one of them"));
  }
  if (pattern.has("Regex")) return Pattern::of_regex(pattern.text("Regex"), pattern.where());
  return Pattern::of_literal(short_text(pattern, "String"), pattern.where());
}

SplitBehavior read_behavior(const JsonObject& section, const std::string& behavior) {
  if (behavior == "Removed") return SplitBehavior::removed;
  if (behavior == "Isolated") return SplitBehavior::isolated;
  if (behavior == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (behavior == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (behavior == "Contiguous") return SplitBehavior::contiguous;
  throw DataError(
      problem(cat("behavior \"", behavior, "\""))
          .at(section.where())
          .must("be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous"));
}

struct Metaspace {
  std::string replacement;
  PreTokenizer::PrependScheme scheme;
  bool split;
};

// "add_prefix_space" is what older files have instead of, or beside, the scheme; "str_rep" repeats
// the replacement.
Metaspace read_metaspace(const JsonObject& section) {
  using Scheme = PreTokenizer::PrependScheme;
  section.only({"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  const std::string name = section.text("prepend_scheme", "always");
  if (name != "always" && name != "never" && name != "first") {
    throw DataError(problem(cat("prepend_scheme \"", name, "\""))
                        .at(section.where())
                        .must("be first, never or always"));
  }
  const Scheme scheme = name == "first"   ? Scheme::first
                        : name == "never" ? Scheme::never
                                          : Scheme::always;
  if (!section.flag("add_prefix_space", true) && scheme != Scheme::never) {
    throw DataError(problem(cat("add_prefix_space is false and prepend_scheme \"", name, "\""))
                        .at(section.where())
                        .must("agree: never is the scheme without a space"));
  }
  return {section.character("replacement"), scheme, section.flag("split", true)};
}

void read_byte_level(const JsonObject& section, PreTokenizer& pre_tokenizer) {
  section.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (section.flag("add_prefix_space")) pre_tokenizer.add_prefix_space();
  if (section.flag("use_regex", true)) pre_tokenizer.add_known_split(KnownPattern::gpt2);
  pre_tokenizer.add_byte_characters();
}

void read_split(const JsonObject& section, PreTokenizer& pre_tokenizer) {
  section.only({"type", "pattern", "behavior", "invert"});
  const SplitBehavior behavior = read_behavior(section, section.text("behavior"));
  const bool invert = section.flag("invert");
  Pattern pattern = read_pattern(section);
  const JsonObject given = section.object("pattern");
  const KnownPattern known =
      given.has("Regex") ? known_pattern(given.text("Regex")) : KnownPattern::none;
  if (known != KnownPattern::none && behavior == SplitBehavior::isolated) {
    pre_tokenizer.add_known_split(known);  // whole text matches: inverting changes nothing
  } else {
    pre_tokenizer.add_split(std::move(pattern), behavior, invert);
  }
}

int32_t pair_id(const JsonObject& section, const char* key) {
  const nlohmann::json& pair = section.value(key);
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() ||
      !pair[1].is_number_unsigned() || pair[1].get<uint64_t>() > INT32_MAX) {
    section.wrong(key, "[token, id]");
  }
  return pair[1].get<int32_t>();
}

// "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]; the ids of <s> stand in
// "special_tokens". The template for pairs of texts is not used here.
void read_template(const JsonObject& section, BpeParts& parts) {
  section.only({"type", "single", "pair", "special_tokens"});
  const JsonObject tokens = section.object("special_tokens");
  bool behind_text = false;
  for (const JsonObject& piece : section.objects("single")) {
    piece.only({"SpecialToken", "Sequence"});
    if (piece.has("Sequence")) {
      if (piece.object("Sequence").text("id") != "A" || behind_text) {
        throw DataError(problem("another sequence than one A")
                            .at(piece.where())
                            .must("name the sequence A, once"));
      }
      behind_text = true;
      continue;
    }
    const std::string name = piece.object("SpecialToken").text("id");
    if (!tokens.has(name)) {
      throw DataError(problem(cat("the special token ", name))
                          .at(piece.where())
                          .must("stand in special_tokens"));
    }
    const JsonObject token = tokens.object(name);
    const nlohmann::json& ids = token.value("ids");
    if (!ids.is_array()) token.wrong("ids", "a list of ids");
    for (const nlohmann::json& id : ids) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
        token.wrong("ids", "a list of ids");
      }
      (behind_text ? parts.behind : parts.before).push_back(id.get<int32_t>());
    }
  }
  if (!behind_text) {
    throw DataError(
        problem("no sequence in \"single\"").at(section.where()).must("name the sequence A, once"));
  }
}

}  // namespace

void read_normalizer(const JsonObject& section, Normalizer& normalizer) {
  using Form = Normalizer::Form;
  const std::string type = section.text("type");
  if (type == "Sequence") {
    section.only({"type", "normalizers"});
    for (const JsonObject& step : section.objects("normalizers")) {
      read_normalizer(step, normalizer);
    }
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    section.only({"type"});
    normalizer.add_form(type == "NFC"    ? Form::nfc
                        : type == "NFD"  ? Form::nfd
                        : type == "NFKC" ? Form::nfkc
                                         : Form::nfkd);
  } else if (type == "Lowercase") {
    section.only({"type"});
    normalizer.add_lowercase();
  } else if (type == "ByteLevel") {
    section.only({"type"});
    normalizer.add_byte_characters();
  } else if (type == "Prepend") {
    section.only({"type", "prepend"});
    normalizer.add_prepend(short_text(section, "prepend"));
  } else if (type == "Replace") {
    section.only({"type", "pattern", "content"});
    normalizer.add_replace(read_pattern(section), short_text(section, "content"));
  } else if (type == "Strip") {
    section.only({"type", "strip_left", "strip_right"});
    normalizer.add_strip(section.flag("strip_left"), section.flag("strip_right"));
  } else {
    unknown_type(section, type,
                 "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, ByteLevel, Prepend, Replace, Strip");
  }
  check_steps(section, normalizer.size());
}

void read_pre_tokenizer(const JsonObject& section, PreTokenizer& pre_tokenizer) {
  using Characters = PreTokenizer::Characters;
  const std::string type = section.text("type");
  if (type == "Sequence") {
    section.only({"type", "pretokenizers"});
    for (const JsonObject& step : section.objects("pretokenizers")) {
      read_pre_tokenizer(step, pre_tokenizer);
    }
  } else if (type == "ByteLevel") {
    read_byte_level(section, pre_tokenizer);
  } else if (type == "Split") {
    read_split(section, pre_tokenizer);
  } else if (type == "Metaspace") {
    const Metaspace metaspace = read_metaspace(section);
    pre_tokenizer.add_metaspace(metaspace.replacement, metaspace.scheme, metaspace.split);
  } else if (type == "Digits") {
    section.only({"type", "individual_digits"});
    pre_tokenizer.add_character_split(Characters::numbers, section.flag("individual_digits")
                                                               ? SplitBehavior::isolated
                                                               : SplitBehavior::contiguous);
  } else if (type == "Punctuation") {
    section.only({"type", "behavior"});
    pre_tokenizer.add_character_split(Characters::punctuation,
                                      read_behavior(section, section.text("behavior", "Isolated")));
  } else if (type == "Whitespace") {
    section.only({"type"});
    pre_tokenizer.add_whitespace();
  } else if (type == "WhitespaceSplit") {
    section.only({"type"});
    pre_tokenizer.add_character_split(Characters::spaces, SplitBehavior::removed);
  } else {
    unknown_type(section, type,
                 "Sequence, ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, "
                 "WhitespaceSplit");
  }
  check_steps(section, pre_tokenizer.size());
}

void read_decoder(const JsonObject& section, TokenDecoder& decoder) {
  const std::string type = section.text("type");
  if (type == "Sequence") {
    section.only({"type", "decoders"});
    for (const JsonObject& step : section.objects("decoders")) read_decoder(step, decoder);
  } else if (type == "ByteLevel") {
    section.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    decoder.add_byte_level();
  } else if (type == "ByteFallback") {
    section.only({"type"});
    decoder.add_byte_fallback();
  } else if (type == "Fuse") {
    section.only({"type"});
    decoder.add_fuse();
  } else if (type == "Strip") {
    section.only({"type", "content", "start", "stop"});
    size_t pos = 0;
    const uint32_t character = next_code_point(section.character("content"), pos);
    decoder.add_strip(character, static_cast<size_t>(section.number("start")),
                      static_cast<size_t>(section.number("stop")));
  } else if (type == "Replace") {
    section.only({"type", "pattern", "content"});
    decoder.add_replace(read_pattern(section), short_text(section, "content"));
  } else if (type == "Metaspace") {
    const Metaspace metaspace = read_metaspace(section);
    decoder.add_metaspace(metaspace.replacement,
                          metaspace.scheme != PreTokenizer::PrependScheme::never);
  } else if (type == "BPEDecoder") {
    section.only({"type", "suffix"});
    const std::string suffix = short_text(section, "suffix");
    if (suffix.empty()) section.wrong("suffix", "a string that is not empty");
    decoder.add_word_suffix(suffix);
  } else {
    unknown_type(section, type,
                 "Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder");
  }
  check_steps(section, decoder.size());
}

void read_post_processor(const JsonObject& section, BpeParts& parts) {
  const std::string type = section.text("type");
  if (type == "Sequence") {
    section.only({"type", "processors"});
    for (const JsonObject& step : section.objects("processors")) read_post_processor(step, parts);
    return;
  }
  if (type == "ByteLevel") {  // moves offsets, which are not kept here
    section.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return;
  }
  if (!parts.before.empty() || !parts.behind.empty()) {
    throw DataError(
        problem("a second processor that adds tokens").at(section.where()).must("be the only one"));
  }
  if (type == "TemplateProcessing") {
    read_template(section, parts);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    section.only({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
    parts.before = {pair_id(section, "cls")};
    parts.behind = {pair_id(section, "sep")};
  } else {
    unknown_type(section, type,
                 "Sequence, ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing");
  }
}

}  // namespace tptrain::tokenizer
