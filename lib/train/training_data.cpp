#include "train/training_data.h"

#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/show_row.h"
#include "data/targetless.h"
#include "data/token_store.h"
#include "train/corpora.h"

namespace tptrain::train {
namespace {

namespace fs = std::filesystem;

/// Of rows of which a part is learned: how that came out.
void log_first_row(const data::SourceTokens& source, const std::string& of_source,
                   const tokenizer::Tokenizer& tokenizer, Logger& log) {
  constexpr size_t kMostBytes = 1500;
  const formats::TokenFile file = data::open_tokens(source.tokens);
  if (!file.header().labelled) return;
  log.info(cat("data: the first row", of_source,
               ", what is learned in [[ ]]: ", data::show_row(file, 0, tokenizer, kMostBytes)));
}

/// Rank 0 turns text into tokens; every rank learns where they are. Collective.
data::PreparedTokens prepare(comm::MpiSession& session, const data::Corpus& corpus,
                             const tokenizer::Tokenizer& tokenizer, const fs::path& directory,
                             const std::string& split) {
  data::PreparedTokens prepared;
  comm::agree(
      session,
      [&] {
        if (session.rank() == 0)
          prepared = data::prepare_tokens(corpus, tokenizer, directory, split);
      },
      OnStop::give_up);
  return data::prepared_from_wire(
      session.broadcast(session.rank() == 0 ? data::to_wire(prepared) : "", 0));
}

std::vector<data::SourceTokens> prepare_all(comm::MpiSession& session,
                                            const std::vector<NamedCorpus>& corpora,
                                            const tokenizer::Tokenizer& tokenizer,
                                            const fs::path& directory, const std::string& split) {
  std::vector<data::SourceTokens> sources;
  for (const NamedCorpus& named : corpora) {
    sources.push_back({.tokens = prepare(session, named.corpus, tokenizer, directory, split),
                       .name = named.name,
                       .weight = named.weight,
                       .repeat = named.repeat});
  }
  return sources;
}

int64_t tokens_of(const std::vector<data::SourceTokens>& sources) {
  int64_t tokens = 0;
  for (const data::SourceTokens& source : sources) tokens += source.tokens.tokens;
  return tokens;
}

int64_t documents_of(const std::vector<data::SourceTokens>& sources) {
  int64_t documents = 0;
  for (const data::SourceTokens& source : sources) documents += source.tokens.documents;
  return documents;
}

/// " of NAME", where there are several.
std::string of_source(const TrainingData& data, const data::SourceTokens& source) {
  return data.sources.size() > 1 ? cat(" of ", source.name) : "";
}

/// Of a mixture, what each source gives.
void log_sources(const TrainingData& data, const ResolvedConfig& resolved, Logger& log) {
  if (data.sources.size() < 2) return;
  const int64_t all = resolved.run.train.max_steps * resolved.batch.global_batch_size();
  const auto progress = data.train->progress(all);
  for (size_t i = 0; i < data.sources.size(); ++i) {
    const data::SourceTokens& source = data.sources[i];
    const std::string part =
        !progress.empty()
            ? cat("weight ", *source.weight, ", ", fixed(progress[i].epoch, 2),
                  " epochs of its own")
            : cat(source.repeat, source.repeat == 1 ? " time" : " times", " an epoch");
    log.info(cat("source ", source.name, ": ", with_thousands(source.tokens.tokens), " tokens in ",
                 with_thousands(source.tokens.documents),
                 source.tokens.documents == 1 ? " document, " : " documents, ", part));
  }
}

/// `asked_epochs`: train.epochs of the run file, 0 where it gives steps.
void log_data(const TrainingData& data, const ResolvedConfig& resolved, double asked_epochs,
              Logger& log) {
  const config::RunConfig& run = resolved.run;
  const int64_t sequences = data.train->windows();
  const double epochs = static_cast<double>(run.train.max_steps) *
                        static_cast<double>(resolved.batch.global_batch_size()) /
                        static_cast<double>(sequences);
  const int64_t documents = documents_of(data.sources);
  log.info(cat("data: ", with_thousands(tokens_of(data.sources)), " tokens in ",
               with_thousands(documents), documents == 1 ? " document" : " documents"));
  log.info(cat(
      "sequences: ", with_thousands(sequences), " of ", resolved.batch.seq_length,
      data.train->padding() > 0 ? cat(", ", fixed(100 * data.train->padding(), 1), " % padding")
                                : "",
      asked_epochs > 0
          ? cat("; ", asked_epochs, asked_epochs == 1 ? " epoch is " : " epochs are ",
                with_thousands(run.train.max_steps), run.train.max_steps == 1 ? " step" : " steps")
          : cat("; max_steps is ", fixed(epochs, 2), epochs == 1 ? " epoch" : " epochs")));
  log_sources(data, resolved, log);
  for (const data::SourceTokens& source : data.sources)
    log.info(cat(data.sources.size() > 1 ? cat("source ", source.name) : "data", ": read as ",
                 source.tokens.read_as));
  if (run.data.document_mask) log.info("documents in a sequence do not see each other");
  for (const TrainingData::EvalSet& set : data.eval) {
    log.info(cat("held out", set.name.empty() ? "" : " as ", set.name, ": ",
                 with_thousands(tokens_of(set.sources)), " tokens"));
  }
}

/// Says which rows teach nothing, before they cost a step. Throws DataError where none does.
/// Collective.
void tell_targetless(comm::MpiSession& session, const ResolvedConfig& resolved,
                     const data::PreparedTokens& tokens, const data::Corpus& corpus,
                     const tokenizer::Tokenizer& tokenizer, Logger& log) {
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    const data::TargetlessDocuments found =
        data::targetless_documents(tokens, resolved.run.data.packing, resolved.batch.seq_length);
    if (found.count == 0) return;
    const std::vector<std::string> places =
        data::places_of_documents(corpus, tokens.split, tokenizer, found.first);
    const std::string what =
        cat(with_thousands(found.count), " of ", with_thousands(tokens.documents),
            tokens.documents == 1 ? " document" : " documents",
            " without a target within train.seq_length: ", join(places),
            found.count > static_cast<int64_t>(places.size()) ? ", ..." : "");
    if (found.count == tokens.documents) {
      throw DataError(
          problem(what)
              .at("data." + tokens.split)
              .must("hold a token to predict")
              .remedy("Check its labels (-100 says that a token is no target), or raise "
                      "train.seq_length where they begin beyond it."));
    }
    log.warn(cat("data: ", what));
  });
}

data::SamplerOptions sampler_options(const config::RunConfig& run) {
  return {
      .seed = run.train.seed,
      .shuffle = run.data.shuffle,
      .packing = run.data.packing,
      .document_mask = run.data.document_mask ? data::DocumentMask::on : data::DocumentMask::off};
}

/// The sets of data.eval, in their order. Collective.
std::vector<TrainingData::EvalSet> eval_sets(comm::MpiSession& session,
                                             const ResolvedConfig& resolved,
                                             const tokenizer::Tokenizer& tokenizer,
                                             const fs::path& directory) {
  const std::vector<NamedCorpus> corpora = eval_corpora(resolved.run, resolved.decoder.vocab_size);
  std::vector<data::SourceTokens> sources =
      prepare_all(session, corpora, tokenizer, directory, eval_split(resolved.run));
  data::SamplerOptions options = sampler_options(resolved.run);
  options.shuffle = false;
  options.last_window = data::LastWindow::padded;
  options.whole_batches = false;
  data::BatchShape shape = resolved.batch;
  shape.accumulation = 1;
  std::vector<TrainingData::EvalSet> sets;
  comm::agree(
      session,
      [&] {
        for (size_t begin = 0, end = 0; begin < corpora.size(); begin = end) {
          std::vector<data::SourceTokens> of_set;
          while (end < corpora.size() && corpora[end].set == corpora[begin].set)
            of_set.push_back(sources[end++]);
          data::BatchSampler text(of_set, shape, options);
          sets.push_back({corpora[begin].set, std::move(of_set), std::move(text)});
        }
      },
      OnStop::give_up);
  return sets;
}

/// What was left out, and what was made anew.
void log_notes(const comm::MpiSession& session, const std::vector<data::SourceTokens>& sources,
               Logger& log) {
  for (const data::SourceTokens& source : sources) {
    if (!source.tokens.rebuilt_because.empty())
      log.warn(cat("data: tokens made anew: ", source.tokens.rebuilt_because));
    if (session.rank() != 0) continue;
    for (const std::string& what : source.tokens.notes) log.warn(cat("data: ", what));
  }
}

}  // namespace

TrainingData prepare_data(comm::MpiSession& session, ResolvedConfig& resolved,
                          const tokenizer::Tokenizer& tokenizer, Logger& log) {
  const fs::path directory = data_directory(resolved.run);
  const std::vector<NamedCorpus> corpora = train_corpora(resolved.run, resolved.decoder.vocab_size);
  TrainingData data;
  data.sources = prepare_all(session, corpora, tokenizer, directory, "train");
  data.eval = eval_sets(session, resolved, tokenizer, directory);
  comm::agree(
      session,
      [&] { data.train.emplace(data.sources, resolved.batch, sampler_options(resolved.run)); },
      OnStop::give_up);
  const double asked_epochs = resolved.run.train.epochs;
  resolve_epochs(resolved, data.train->windows());
  log_notes(session, data.sources, log);
  for (const TrainingData::EvalSet& set : data.eval) log_notes(session, set.sources, log);
  if (session.rank() == 0) {
    const auto eval = eval_corpora(resolved.run, resolved.decoder.vocab_size);
    for (const std::string& what : shared_files(corpora, eval)) log.warn(cat("data: ", what));
  }
  log_data(data, resolved, asked_epochs, log);
  for (size_t i = 0; i < corpora.size(); ++i)
    tell_targetless(session, resolved, data.sources[i].tokens, corpora[i].corpus, tokenizer, log);
  if (session.rank() == 0 && data.train->truncated() > 0)
    log.warn(cat(
        "data: ", with_thousands(data.train->truncated()), " of ", documents_of(data.sources),
        " documents are longer than train.seq_length + 1 = ", resolved.batch.seq_length + 1,
        " tokens; data.packing is none, so what is beyond is left out (best_fit would keep it)"));
  if (session.rank() == 0) {
    for (const data::SourceTokens& source : data.sources)
      log_first_row(source, of_source(data, source), tokenizer, log);
  }
  return data;
}

}  // namespace tptrain::train
