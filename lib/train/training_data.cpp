#include "train/training_data.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "data/token_store.h"

namespace tptrain::train {
namespace {

namespace fs = std::filesystem;

data::Corpus corpus_of(const ResolvedConfig& resolved,
                       const std::vector<config::DataSource>& sources) {
  return {.sources = sources,
          .format = resolved.run.data.format,
          .special_as_text = resolved.run.data.special_as_text,
          .vocab_size = resolved.decoder.vocab_size};
}

/// Rank 0 turns text into tokens; every rank learns where they are. Collective.
data::PreparedTokens prepare(comm::MpiSession& session, const data::Corpus& corpus,
                             const tokenizer::Tokenizer& tokenizer, const fs::path& directory,
                             const std::string& split) {
  data::PreparedTokens prepared;
  comm::agree(session, [&] {
    if (session.rank() == 0) prepared = data::prepare_tokens(corpus, tokenizer, directory, split);
  });
  const nlohmann::json message = {{"path", prepared.path.string()},
                                  {"identity", prepared.identity},
                                  {"tokens", prepared.tokens},
                                  {"documents", prepared.documents},
                                  {"rebuilt_because", prepared.rebuilt_because},
                                  {"left_out", prepared.left_out}};
  const nlohmann::json received = nlohmann::json::parse(session.broadcast(message.dump(), 0));
  return {.path = received["path"].get<std::string>(),
          .identity = received["identity"],
          .tokens = received["tokens"],
          .documents = received["documents"],
          .split = split,
          .rebuilt_because = received["rebuilt_because"],
          .left_out = received["left_out"]};
}

}  // namespace

TrainingData prepare_data(comm::MpiSession& session, const ResolvedConfig& resolved,
                          const tokenizer::Tokenizer& tokenizer, Logger& log) {
  const config::RunConfig& run = resolved.run;
  const fs::path directory = fs::path(run.run_dir) / "data";
  TrainingData data;
  data.train_tokens =
      prepare(session, corpus_of(resolved, run.data.train), tokenizer, directory, "train");
  if (!run.data.eval.empty())
    data.eval_tokens =
        prepare(session, corpus_of(resolved, run.data.eval), tokenizer, directory, "eval");
  data::SamplerOptions options = {
      .seed = run.train.seed,
      .shuffle = run.data.shuffle,
      .packing = data::packing_of(run.data.packing),
      .document_mask = run.data.document_mask ? data::DocumentMask::on : data::DocumentMask::off};
  comm::agree(session, [&] {
    data.train.emplace(data.train_tokens, resolved.batch, options);
    if (run.data.eval.empty()) return;
    data::BatchShape shape = resolved.batch;
    shape.accumulation = 1;
    options.shuffle = false;
    data.eval.emplace(data.eval_tokens, shape, options);
  });
  for (const data::PreparedTokens& prepared : {data.train_tokens, data.eval_tokens}) {
    if (!prepared.rebuilt_because.empty())
      log.warn(cat("data: tokens made anew: ", prepared.rebuilt_because));
    if (session.rank() != 0) continue;
    for (const std::string& what : prepared.left_out) log.warn(cat("data: ", what));
  }
  log.info(cat("data: ", with_thousands(data.train_tokens.tokens), " tokens in ",
               data.train_tokens.documents, " documents, ", with_thousands(data.train->windows()),
               " sequences of ", resolved.batch.seq_length,
               data.train->padding() > 0
                   ? cat(" with ", fixed(100 * data.train->padding(), 1), " % padding")
                   : "",
               run.data.document_mask ? ", documents in a sequence do not see each other" : "",
               "; held out: ", with_thousands(data.eval_tokens.tokens), " tokens"));
  if (session.rank() == 0 && data.train->truncated() > 0)
    log.warn(cat(
        "data: ", with_thousands(data.train->truncated()), " of ", data.train_tokens.documents,
        " documents are longer than train.seq_length + 1 = ", resolved.batch.seq_length + 1,
        " tokens; data.packing is none, so what is beyond is left out (best_fit would keep it)"));
  return data;
}

}  // namespace tptrain::train
