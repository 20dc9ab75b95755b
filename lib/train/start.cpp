#include "train/start.h"

#include <chrono>
#include <set>

#include "base/text.h"
#include "checkpoint/huggingface_source.h"
#include "model/families/family.h"
#include "optim/update_rule.h"

namespace tptrain::train {
namespace {

checkpoint::TrainState fresh_state(const ResolvedConfig& resolved,
                                   const tokenizer::Tokenizer& tokenizer,
                                   const data::PreparedTokens& tokens) {
  return {.step = 0,
          .updates_done = 0,
          .tokens_seen = 0,
          .model_json = model::to_json(resolved.decoder),
          .config_hash = resolved.training_hash,
          .tokenizer_name = resolved.run.data.tokenizer,
          .tokenizer_hash = tokenizer.hash(),
          .data_identity = tokens.identity,
          .global_batch_size = resolved.batch.global_batch_size(),
          .dp_size = resolved.mesh.dp_size,
          .tp_size = resolved.mesh.tp_size,
          .zero_stage = static_cast<int>(resolved.run.parallel.zero_stage)};
}

/// Refuses a checkpoint that is not this training's: the same numbers could not follow from it.
void check_resumable(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                     int64_t max_steps) {
  const checkpoint::TrainState& saved = info.state;
  std::vector<Problem> problems;
  const auto refuse = [&](const std::string& what, const std::string& fix) {
    problems.push_back(problem(what).at(info.path.string()).remedy(fix));
  };
  if (model::decoder_config_from_json(saved.model_json, info.path.string()) !=
      model::decoder_config_from_json(fresh.model_json, "this run")) {
    refuse(
        cat("the checkpoint is of another model (", saved.model_json, "), this run's is ",
            fresh.model_json),
        "Use the model section it was trained with, another run_dir, or checkpoint.resume: never.");
  }
  if (saved.tokenizer_hash != fresh.tokenizer_hash) {
    refuse(cat("the checkpoint was trained with another tokenizer ('", saved.tokenizer_name, "')"),
           "Use that data.tokenizer, or checkpoint.resume: never.");
  }
  if (saved.step < max_steps && saved.data_identity != fresh.data_identity) {
    refuse(
        "data.train holds other text than when the checkpoint was written: the data position would "
        "mean other sequences",
        "Put the text back, or start anew with another run_dir or checkpoint.resume: never.");
  }
  if (saved.global_batch_size != fresh.global_batch_size) {
    refuse(cat("the checkpoint's global batch is ", saved.global_batch_size,
               " sequences, this run's is ", fresh.global_batch_size),
           cat("Set train.global_batch_size: ", saved.global_batch_size,
               " (it works with any dp size that divides it), or checkpoint.resume: never."));
  }
  if (!problems.empty()) throw CheckpointError(problems);
}

/// What another rule has kept is no state of this one.
void check_update_rule(const checkpoint::CheckpointInfo& info, const std::string& type) {
  const std::vector<std::string>& slots = optim::update_rule(type).slots();
  std::vector<std::string> kept;
  for (const sharding::StateKind& kind : info.kinds) {
    if (kind != sharding::kMaster) kept.push_back(kind);
  }
  if (std::set(kept.begin(), kept.end()) == std::set(slots.begin(), slots.end())) return;
  const std::string trained_with = optim::rule_keeping(kept);
  throw CheckpointError(
      problem(cat("the checkpoint was trained with ",
                  trained_with.empty() ? std::string("another update rule") : trained_with,
                  " (it keeps ", join(kept, " and "), "), and optimizer.type is ", type, " (",
                  join(slots, " and "), ")"))
          .at(info.path.string())
          .remedy(trained_with.empty() ? std::string("Train in another run_dir.")
                                       : cat("Set optimizer.type to ", trained_with,
                                             ", or train in another run_dir.")));
}

std::optional<checkpoint::CheckpointInfo> checkpoint_to_resume(checkpoint::CheckpointStore& store,
                                                               const std::string& resume,
                                                               Logger& log) {
  if (resume == "never") return std::nullopt;
  if (resume != "auto") return store.open(resume);
  const checkpoint::CheckpointStore::Found found = store.newest();
  for (const std::string& line : found.refused) log.warn(line);
  return found.info;
}

/// The first values of the parameters. Collective.
void begin_anew(Engine& engine, const ResolvedConfig& resolved, comm::MpiSession& session,
                Logger& log) {
  const config::RunConfig& run = resolved.run;
  if (run.model.init == "random") {
    engine.zero().initialise(run.train.seed);
    log.info(cat("start: random values from seed ", run.train.seed));
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  std::optional<checkpoint::HuggingFaceSource> weights;
  comm::agree(session,
              [&] { weights.emplace(run.model.path, model::stored_model(resolved.decoder)); });
  engine.zero().load_parameters(*weights);
  session.barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  log.info(cat("start: the weights of ", run.model.path, " (",
               formats::dtype_name(weights->stored_dtype()), "), read in ",
               fixed(seconds.count(), 2), " s"));
}

}  // namespace

std::optional<checkpoint::TrainState> start_or_resume(const StartParts& parts,
                                                      const tokenizer::Tokenizer& tokenizer,
                                                      const data::PreparedTokens& tokens) {
  const auto& [session, resolved, engine, store, log] = parts;
  const config::RunConfig& run = resolved.run;
  checkpoint::TrainState state = fresh_state(resolved, tokenizer, tokens);
  if (const auto from = checkpoint_to_resume(store, run.checkpoint.resume, log)) {
    comm::agree(session, [&] {
      check_resumable(*from, state, run.train.max_steps);
      check_update_rule(*from, run.optimizer.type);
    });
    if (from->state.config_hash != state.config_hash)
      log.warn(cat("resume: the settings differ from those ", from->path.string(),
                   " was trained with; going on with this file's"));
    if (from->state.step >= run.train.max_steps) {
      log.info(cat("nothing to train: ", from->path.string(), " is at step ", from->state.step,
                   " of train.max_steps ", run.train.max_steps));
      return std::nullopt;
    }
    sharding::StateDict pieces = engine.zero().state_dict();
    store.load_into(pieces, *from);
    engine.zero().state_loaded(from->state.updates_done);
    state.step = from->state.step;
    state.updates_done = from->state.updates_done;
    state.tokens_seen = from->state.tokens_seen;
    log.info(cat("resume: ", from->path.string(), ", step ", state.step, ", ",
                 with_thousands(state.tokens_seen), " tokens seen"));
  } else {
    begin_anew(engine, resolved, session, log);
  }
  return state;
}

}  // namespace tptrain::train
