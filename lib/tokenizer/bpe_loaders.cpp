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

// The library gives an added token the id that the vocabulary has for it, else the next free one,
// and only warns where the file says otherwise. A model trained with the file's id would be fed
// another: refused here.
void check_added_ids(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                     const std::string& name) {
  const auto vocabulary_size = static_cast<int32_t>(vocabulary.size());
  int32_t next = vocabulary_size;
  for (const AddedToken& token : added) {
    if (token.content.empty()) continue;
    const int32_t known = vocabulary.find(token.content);
    const int32_t expected = known >= 0 ? known : next;
    if (known < 0) ++next;
    if (token.id == expected) continue;
    throw DataError(problem(cat("the token ", shown(token.content), " has the id ", token.id,
                                ", and the Hugging Face library gives it ", expected))
                        .at(cat(name, ": added_tokens"))
                        .must(known >= 0 ? "have the id that model.vocab has for it"
                                         : "follow the vocabulary and the tokens before it without "
                                           "a gap"));
  }
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
  if (model.text("type", "BPE") != "BPE") {
    throw DataError(problem(cat("type \"", shown(model.text("type")), "\""))
                        .at(model.where())
                        .must("be BPE, the model that is built")
                        .remedy("Sentencepiece models are read from tokenizer.model."));
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
                                               const std::string& eos_token) {
  TokenizerJson file = parse_tokenizer_json(text, name);
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
  nlohmann::json deciding = nlohmann::json::object();
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "model"}) {
    if (root.has(key)) deciding[key] = root.value(key);  // model: vocab and merges are empty here
  }
  parts.configuration = deciding.dump();
  return make_bpe_tokenizer(std::move(parts));
}

}  // namespace tptrain::tokenizer
