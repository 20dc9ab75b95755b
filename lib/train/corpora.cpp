#include "train/corpora.h"

#include <algorithm>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "chat_template/chat_template.h"
#include "config/share.h"
#include "train/resolve.h"

namespace tptrain::train {
namespace {

using Sources = std::vector<config::DataSource>;

bool is_plain(const config::DataSource& source) {
  config::DataSource plain{.path = source.path};
  plain.set = source.set;
  return source == plain;
}

std::shared_ptr<const chat_template::ChatTemplate> chat_template_of(const config::RunConfig& run) {
  const std::string tokenizer = tokenizer_of(run);
  return std::make_shared<const chat_template::ChatTemplate>(
      run.data.chat_template.empty()
          ? chat_template::ChatTemplate::from_tokenizer(tokenizer)
          : chat_template::ChatTemplate::from_file(run.data.chat_template, tokenizer));
}

data::RowNames names_of(const config::RunConfig& run, const config::DataSource& source) {
  const config::Roles& roles = source.roles.empty() ? run.data.roles : source.roles;
  return source.columns.empty() ? data::RowNames(run.data.columns, run.data.text_key, roles)
                                : data::RowNames(source.columns, data::kTextKey, roles);
}

data::Corpus corpus_of(const config::RunConfig& run, int64_t vocab_size, Sources sources,
                       const std::string& key) {
  const config::DataSource& first = sources.front();
  const auto format = first.format ? first.format : run.data.format;
  const std::optional<config::Share> subset = config::share_of(first.subset);
  return {.sources = std::move(sources),
          .format = format,
          .subset = subset,
          .names = names_of(run, first),
          .max_bad_fraction = run.data.max_bad_fraction,
          .special_as_text = run.data.special_as_text,
          .vocab_size = vocab_size,
          .trust_times = run.data.trust_times,
          .key = key,
          .chat = {.train_on = run.data.train_on, .train_on_end = run.data.train_on_end},
          .chat_template = [run] { return chat_template_of(run); }};
}

/// As data.eval_share says: what is trained on, or what is held out of it.
void hold_out(const config::RunConfig& run, data::Holdout::Part part,
              std::vector<NamedCorpus>& corpora) {
  const auto share = config::share_of(run.data.eval_share);
  if (!share) return;
  for (NamedCorpus& named : corpora)
    named.corpus.holdout = {.share = share->fraction, .part = part};
}

/// Of a list of entries that are one mixture, or one set.
std::vector<NamedCorpus> corpora_of(const config::RunConfig& run, int64_t vocab_size,
                                    const Sources& sources, const std::string& key) {
  std::vector<NamedCorpus> corpora;
  if (std::all_of(sources.begin(), sources.end(), is_plain)) {
    corpora.push_back(
        {.set = sources.front().set, .corpus = corpus_of(run, vocab_size, sources, key)});
    return corpora;
  }
  for (size_t i = 0; i < sources.size(); ++i) {
    const config::DataSource& source = sources[i];
    corpora.push_back({.name = source.name.empty() ? source.path : source.name,
                       .weight = source.weight,
                       .repeat = source.repeat,
                       .set = source.set,
                       .corpus = corpus_of(run, vocab_size, {source}, key)});
    corpora.back().corpus.first = i;
  }
  return corpora;
}

struct SharedFiles {
  int64_t count = 0;
  std::string first = {};
  void add(const std::string& file, const std::string& where) {
    if (count++ == 0) first = where.empty() ? file : cat(file, " (", where, ")");
  }
  std::string are(const std::string& what) const {
    return count == 1 ? cat(first, " is ", what)
                      : cat(with_thousands(count), " files are ", what, "; the first is ", first);
  }
};

std::vector<std::string> files_of(const data::Corpus& corpus) {
  std::vector<std::string> files;
  std::vector<std::string> notes;
  try {
    for (const data::SourceFile& file :
         data::expand_sources(corpus.sources, corpus.key, corpus.first, notes))
      files.push_back(std::filesystem::absolute(file.path).lexically_normal().string());
  } catch (const DataError&) {
    files.clear();  // said by whoever reads them
  }
  return files;
}

}  // namespace

std::filesystem::path data_directory(const config::RunConfig& run) {
  if (!run.data.cache_dir.empty()) return run.data.cache_dir;
  return std::filesystem::path(run.run_dir) / "data";
}

std::vector<NamedCorpus> train_corpora(const config::RunConfig& run, int64_t vocab_size) {
  std::vector<NamedCorpus> corpora = corpora_of(run, vocab_size, run.data.train, "data.train");
  hold_out(run, data::Holdout::Part::trained, corpora);
  return corpora;
}

std::vector<NamedCorpus> eval_corpora(const config::RunConfig& run, int64_t vocab_size) {
  std::vector<NamedCorpus> all;
  if (!run.data.eval_share.empty()) {
    all = corpora_of(run, vocab_size, run.data.train, "data.train");
    hold_out(run, data::Holdout::Part::held_out, all);
    // Of every source all that is held out, once.
    for (NamedCorpus& named : all) {
      named.weight = std::nullopt;
      named.repeat = 1;
    }
    return all;
  }
  const Sources& sources = run.data.eval;
  for (auto begin = sources.begin(); begin != sources.end();) {
    const std::string set = begin->set;
    const auto end = std::find_if(
        begin, sources.end(), [&](const config::DataSource& source) { return source.set != set; });
    for (NamedCorpus& corpus : corpora_of(run, vocab_size, Sources(begin, end),
                                          set.empty() ? "data.eval" : cat("data.eval.", set))) {
      all.push_back(std::move(corpus));
    }
    begin = end;
  }
  return all;
}

std::vector<std::string> shared_files(const std::vector<NamedCorpus>& train,
                                      const std::vector<NamedCorpus>& eval) {
  std::map<std::string, const NamedCorpus*> trained;
  SharedFiles twice;
  SharedFiles evaluated;
  for (const NamedCorpus& named : train) {
    for (const std::string& file : files_of(named.corpus)) {
      const auto [known, added] = trained.emplace(file, &named);
      const data::Corpus& earlier = known->second->corpus;
      if (!added && earlier.names == named.corpus.names && earlier.format == named.corpus.format)
        twice.add(file, cat(known->second->name, " and ", named.name));
    }
  }
  for (const NamedCorpus& named : eval) {
    if (named.corpus.holdout.any()) continue;
    for (const std::string& file : files_of(named.corpus)) {
      if (trained.contains(file)) evaluated.add(file, named.set);
    }
  }
  std::vector<std::string> sentences;
  if (twice.count > 0) sentences.push_back(twice.are("in two sources, and trained on in both"));
  if (evaluated.count > 0)
    sentences.push_back(
        evaluated.are("both trained on and evaluated on, so that the loss says what "
                      "was learned by heart"));
  return sentences;
}

std::string eval_split(const config::RunConfig& run) {
  return run.data.eval_share.empty() ? "eval" : "eval_share";
}

}  // namespace tptrain::train
