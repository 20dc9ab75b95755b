#include "train/training_data.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "data/show_row.h"
#include "data/targetless.h"
#include "data/token_store.h"
#include "tokenizer/chat_template.h"

namespace tptrain::train {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const tokenizer::ChatTemplate> chat_template_of(const config::RunConfig& run) {
  const std::string tokenizer = tokenizer_of(run);
  return std::make_shared<const tokenizer::ChatTemplate>(
      run.data.chat_template.empty()
          ? tokenizer::ChatTemplate::from_tokenizer(tokenizer)
          : tokenizer::ChatTemplate::from_file(run.data.chat_template, tokenizer));
}

data::Corpus corpus_of(const ResolvedConfig& resolved,
                       const std::vector<config::DataSource>& sources) {
  const config::RunConfig& run = resolved.run;
  return {.sources = sources,
          .format = run.data.format,
          .special_as_text = run.data.special_as_text,
          .vocab_size = resolved.decoder.vocab_size,
          .chat = {.train_on = data::train_on_of(run.data.train_on),
                   .train_on_end = run.data.train_on_end},
          .chat_template = [run] { return chat_template_of(run); }};
}

/// Of rows of which a part is learned: how that came out.
void log_first_row(const data::PreparedTokens& prepared, const tokenizer::Tokenizer& tokenizer,
                   Logger& log) {
  constexpr size_t kMostBytes = 1500;
  const formats::TokenFile file(prepared.path);
  if (!file.header().labelled) return;
  log.info(cat("data: the first row, what is learned in [[ ]]: ",
               data::show_first_row(file, tokenizer, kMostBytes)));
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
  const nlohmann::json message = {{"path", prepared.path.string()},
                                  {"identity", prepared.identity},
                                  {"tokens", prepared.tokens},
                                  {"documents", prepared.documents},
                                  {"rebuilt_because", prepared.rebuilt_because},
                                  {"notes", prepared.notes}};
  // Notes name files, whose names may be any bytes.
  const std::string wire = message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const nlohmann::json received = nlohmann::json::parse(session.broadcast(wire, 0));
  return {.path = received["path"].get<std::string>(),
          .identity = received["identity"],
          .tokens = received["tokens"],
          .documents = received["documents"],
          .split = split,
          .rebuilt_because = received["rebuilt_because"],
          .notes = received["notes"]};
}

void log_data(const TrainingData& data, const ResolvedConfig& resolved, Logger& log) {
  const config::RunConfig& run = resolved.run;
  const int64_t sequences = data.train->windows();
  const double epochs = static_cast<double>(run.train.max_steps) *
                        static_cast<double>(resolved.batch.global_batch_size()) /
                        static_cast<double>(sequences);
  log.info(cat("data: ", with_thousands(data.train_tokens.tokens), " tokens in ",
               with_thousands(data.train_tokens.documents),
               data.train_tokens.documents == 1 ? " document" : " documents"));
  log.info(cat("sequences: ", with_thousands(sequences), " of ", resolved.batch.seq_length,
               data.train->padding() > 0
                   ? cat(", ", fixed(100 * data.train->padding(), 1), " % padding")
                   : "",
               "; max_steps is ", fixed(epochs, 2), epochs == 1 ? " epoch" : " epochs"));
  if (run.data.document_mask) log.info("documents in a sequence do not see each other");
  if (data.eval) log.info(cat("held out: ", with_thousands(data.eval_tokens.tokens), " tokens"));
}

/// Says which rows teach nothing, before they cost a step. Throws DataError where none does.
/// Collective.
void tell_targetless(comm::MpiSession& session, const ResolvedConfig& resolved,
                     const data::PreparedTokens& tokens, const tokenizer::Tokenizer& tokenizer,
                     Logger& log) {
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    const data::TargetlessDocuments found = data::targetless_documents(
        tokens, data::packing_of(resolved.run.data.packing), resolved.batch.seq_length);
    if (found.count == 0) return;
    const std::vector<std::string> places = data::places_of_documents(
        corpus_of(resolved, resolved.run.data.train), tokens.split, tokenizer, found.first);
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
  comm::agree(
      session,
      [&] {
        data.train.emplace(data.train_tokens, resolved.batch, options);
        if (run.data.eval.empty()) return;
        data::BatchShape shape = resolved.batch;
        shape.accumulation = 1;
        options.shuffle = false;
        data.eval.emplace(data.eval_tokens, shape, options);
      },
      OnStop::give_up);
  for (const data::PreparedTokens& prepared : {data.train_tokens, data.eval_tokens}) {
    if (!prepared.rebuilt_because.empty())
      log.warn(cat("data: tokens made anew: ", prepared.rebuilt_because));
    if (session.rank() != 0) continue;
    for (const std::string& what : prepared.notes) log.warn(cat("data: ", what));
  }
  log_data(data, resolved, log);
  tell_targetless(session, resolved, data.train_tokens, tokenizer, log);
  if (session.rank() == 0 && data.train->truncated() > 0)
    log.warn(cat(
        "data: ", with_thousands(data.train->truncated()), " of ", data.train_tokens.documents,
        " documents are longer than train.seq_length + 1 = ", resolved.batch.seq_length + 1,
        " tokens; data.packing is none, so what is beyond is left out (best_fit would keep it)"));
  if (session.rank() == 0) log_first_row(data.train_tokens, tokenizer, log);
  return data;
}

}  // namespace tptrain::train
