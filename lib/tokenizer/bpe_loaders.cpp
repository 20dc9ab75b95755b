#include "tokenizer/bpe_loaders.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/bpe_assembly.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/tokenizer_json_parts.h"

namespace tptrain::tokenizer {

namespace {

constexpr size_t kAddedTokenLimit = 4096;  // bytes of one; the longest in use have some 50

AddedToken read_added_token(const JsonObject& entry) {
  entry.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token{.id = entry.number("id"),
                   .content = entry.text("content"),
                   .special = entry.flag("special"),
                   .normalized = entry.flag("normalized"),
                   .single_word = entry.flag("single_word"),
                   .lstrip = entry.flag("lstrip"),
                   .rstrip = entry.flag("rstrip")};
  if (token.content.size() > kAddedTokenLimit) {
    throw DataError(problem(cat("token of ", token.content.size(), " bytes"))
                        .at(entry.where())
                        .must(cat("have at most ", kAddedTokenLimit)));
  }
  return token;
}

// What transformers does about a prefix space that two files speak of: a GPT2Tokenizer takes
// tokenizer_config.json's word (false where it says nothing); of others one version takes this
// file's, another that one's.
void settle_prefix_space(nlohmann::json& tree, const BesideTokenizer& beside,
                         const std::string& name) {
  const auto pre = tree.find("pre_tokenizer");
  const bool byte_level = pre != tree.end() && pre->is_object() && pre->contains("type") &&
                          (*pre)["type"] == "ByteLevel";
  if (byte_level && beside.sets_prefix_space) {
    (*pre)["add_prefix_space"] = beside.add_prefix_space.value_or(false);
    return;
  }
  if (!beside.add_prefix_space) return;
  const std::string steps = pre == tree.end() ? "" : pre->dump();
  const auto normalizer = tree.find("normalizer");
  const bool has = steps.find(R"("add_prefix_space":true)") != steps.npos ||
                   steps.find(R"("prepend_scheme":"first")") != steps.npos ||
                   steps.find(R"("prepend_scheme":"always")") != steps.npos ||
                   (normalizer != tree.end() &&
                    normalizer->dump().find(R"("type":"Prepend")") != std::string::npos);
  if (has == *beside.add_prefix_space) return;
  throw DataError(
      problem(cat("tokenizer_config.json has add_prefix_space: ", has ? "false" : "true", ", and ",
                  name, " puts ", has ? "a" : "no", " space in front of a text"))
          .at(beside.place)
          .must(
              "say the same as tokenizer.json: versions of transformers differ about which counts")
          .remedy("Correct add_prefix_space, or take it out to have what tokenizer.json says."));
}

// A file that says how texts are filled up names the token for it, and transformers adds that one
// too.
BesideTokenizer with_pad_token(const JsonObject& root, BesideTokenizer beside) {
  if (!beside.pad_token_at || !root.has("padding")) return beside;
  const JsonObject padding = root.object("padding");
  const std::string content = padding.text("pad_token", "");
  if (content.empty()) return beside;
  beside.added.insert(beside.added.begin() + static_cast<ptrdiff_t>(*beside.pad_token_at),
                      AddedToken{.content = content});
  return beside;
}

BpeOptions read_options(const JsonObject& model) {
  model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
              "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (model.has("dropout") && model.value("dropout") != 0) {
    throw DataError(problem(cat("dropout is ", model.value("dropout").dump()))
                        .at(model.where())
                        .must("be null: the same text always gives the same ids"));
  }
  BpeOptions options;
  if (model.has("unk_token")) options.unk_token = model.text("unk_token");
  options.continuing_subword_prefix = model.text("continuing_subword_prefix", "");
  options.end_of_word_suffix = model.text("end_of_word_suffix", "");
  options.fuse_unk = model.flag("fuse_unk", false);
  options.byte_fallback = model.flag("byte_fallback", false);
  options.ignore_merges = model.flag("ignore_merges", false);
  return options;
}

void read_model(TokenizerJson& file, const JsonObject& root, const std::string& name,
                BpeParts& parts) {
  const JsonObject model = root.object("model");
  // Older files name no type: a vocabulary with scores is Unigram's.
  const bool scores = model.has("vocab") && model.value("vocab").is_array();
  const std::string type = model.text("type", scores ? "Unigram" : "BPE");
  if (type != "BPE") {
    throw DataError(problem(cat("type \"", shown(type), "\""))
                        .at(model.where())
                        .must("be BPE, the model that is built")
                        .remedy("Sentencepiece's models (Unigram among them) are read from a "
                                "tokenizer.model: take tokenizer.json away where there is one "
                                "beside it."));
  }
  parts.options = read_options(model);
  if (!model.value("vocab").is_object()) model.wrong("vocab", "an object of tokens and ids");
  if (!model.value("merges").is_array()) model.wrong("merges", "a list");
  parts.vocabulary = make_vocabulary(std::move(file.vocab), cat(name, ": model.vocab"));
  parts.merges = make_merges(file.merges, parts.vocabulary, parts.options.continuing_subword_prefix,
                             cat(name, ": model.merges"));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json(std::string_view text, const std::string& name,
                                               const std::string& eos_token,
                                               const BesideTokenizer& beside) {
  TokenizerJson file = parse_tokenizer_json(text, name);
  settle_prefix_space(file.tree, beside, name);
  const JsonObject root(file.tree, name);
  // How texts are cut to a length and filled up is the user's choice at every call, also where the
  // library is used through transformers: truncation and padding are passed over.
  root.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
             "post_processor", "decoder", "model"});
  if (root.text("version", "1.0") != "1.0") {
    throw DataError(
        problem(cat("version \"", shown(root.text("version")), "\"")).at(name).must("be 1.0"));
  }
  BpeParts parts;
  parts.name = name;
  parts.eos_token = eos_token;
  read_model(file, root, name, parts);
  if (root.has("normalizer")) read_normalizer(root.object("normalizer"), parts.normalizer);
  if (root.has("pre_tokenizer")) {
    read_pre_tokenizer(root.object("pre_tokenizer"), parts.pre_tokenizer);
  }
  if (root.has("post_processor")) read_post_processor(root.object("post_processor"), parts);
  if (root.has("decoder")) read_decoder(root.object("decoder"), parts.decoder);
  if (root.has("added_tokens")) {
    for (const JsonObject& entry : root.objects("added_tokens")) {
      parts.added.push_back(read_added_token(entry));
    }
    check_added_ids(parts.added, parts.vocabulary, name);
  }
  add_tokens_beside(with_pad_token(root, beside), parts.vocabulary, parts.added);
  parts.split_special_tokens = beside.split_special_tokens;
  nlohmann::json deciding = nlohmann::json::object();
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "model"}) {
    if (root.has(key)) deciding[key] = root.value(key);  // model: vocab and merges are empty here
  }
  parts.configuration = deciding.dump();
  return make_bpe_tokenizer(std::move(parts));
}

}  // namespace tptrain::tokenizer
