#include "tokenizer/bpe_assembly.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/tokenizer_json.h"

namespace tptrain::tokenizer {

Vocabulary make_vocabulary(std::vector<std::pair<std::string, int32_t>> entries,
                           const std::string& where) {
  if (entries.empty()) throw DataError(problem("no tokens").at(where).must("have some"));
  // A table from ids to tokens has a place for every id: one huge id must not make it huge.
  const int64_t limit = 1'000'000 + 4 * static_cast<int64_t>(entries.size());
  Vocabulary vocabulary;
  vocabulary.reserve(entries.size());
  for (auto& [token, id] : entries) {
    if (id >= limit) {
      throw DataError(problem(cat("the token ", shown(token), " has the id ", id, " of ",
                                  entries.size(), " tokens"))
                          .at(where)
                          .must(cat("have ids below ", limit)));
    }
    if (vocabulary.find(token) >= 0) {
      throw DataError(problem(cat("the token ", shown(token), " is given twice"))
                          .at(where)
                          .must("be given once"));
    }
    if (vocabulary.has(id)) {
      throw DataError(problem(cat("the tokens ", shown(vocabulary.token(id)), " and ", shown(token),
                                  " have the same id ", id))
                          .at(where)
                          .must("have an id of their own each"));
    }
    vocabulary.add(std::move(token), id);
  }
  return vocabulary;
}

std::vector<Merge> make_merges(const std::vector<std::pair<std::string, std::string>>& pairs,
                               const Vocabulary& vocabulary, const std::string& prefix,
                               const std::string& where) {
  std::vector<Merge> merges;
  merges.reserve(pairs.size());
  std::string product;
  for (const auto& pair : pairs) {
    const std::string& left = pair.first;
    const std::string& right = pair.second;
    const auto refuse = [&](const std::string& what) {
      throw DataError(problem(cat("merge ", merges.size(), " joins \"", shown(left), "\" and \"",
                                  shown(right), "\": ", what))
                          .at(where)
                          .must("join two tokens of the vocabulary to a third"));
    };
    if (left.empty() || right.size() <= prefix.size()) refuse("one has no characters");
    const int32_t left_id = vocabulary.find(left);
    const int32_t right_id = vocabulary.find(right);
    if (left_id < 0) refuse("the first is not in the vocabulary");
    if (right_id < 0) refuse("the second is not in the vocabulary");
    product.assign(left).append(right, prefix.size());
    const int32_t product_id = vocabulary.find(product);
    if (product_id < 0) refuse(cat("\"", shown(product), "\" is not in the vocabulary"));
    merges.push_back({left_id, right_id, product_id});
  }
  return merges;
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

void add_tokens_beside(const BesideTokenizer& beside, const Vocabulary& vocabulary,
                       std::vector<AddedToken>& added) {
  auto next = static_cast<int32_t>(vocabulary.size());
  std::unordered_map<std::string, size_t> at;
  for (size_t i = 0; i < added.size(); ++i) {
    at.emplace(added[i].content, i);
    next = std::max(next, added[i].id + 1);
  }
  const auto check = [&](const AddedToken& token, int32_t given) {
    if (token.id < 0 || token.id == given) return;
    throw DataError(
        problem(cat("the token ", shown(token.content), " has the id ", token.id,
                    " in the files beside the tokenizer, and the Hugging Face library gives it ",
                    given))
            .at(beside.place)
            .must("have the id that the vocabulary has for it, or follow the vocabulary and the "
                  "tokens before it without a gap")
            .remedy("Load the tokenizer with transformers and save it (save_pretrained): that "
                    "writes one tokenizer.json with every token."));
  };
  for (const AddedToken& token : beside.added) {
    if (const auto found = at.find(token.content); found != at.end()) {
      AddedToken& known = added[found->second];
      check(token, known.id);
      if (token.id < 0) continue;  // a name for it, no more
      known = token;
      continue;
    }
    const int32_t known = vocabulary.find(token.content);
    const int32_t id = known >= 0 ? known : next++;
    check(token, id);
    at.emplace(token.content, added.size());
    added.push_back(token);
    added.back().id = id;
  }
}

}  // namespace tptrain::tokenizer
