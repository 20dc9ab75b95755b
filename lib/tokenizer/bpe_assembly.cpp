#include "tokenizer/bpe_assembly.h"

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

}  // namespace tptrain::tokenizer
