#include "train/start.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/lineage.h"
#include "checkpoint/manifest.h"
#include "metrics/jsonl_writer.h"
#include "model/config_differences.h"
#include "model/families/family.h"
#include "optim/update_rule.h"
#include "train/host_agreement.h"

namespace tptrain::train {
namespace {

checkpoint::TrainState fresh_state(const ResolvedConfig& resolved,
                                   const tokenizer::Tokenizer& tokenizer,
                                   const std::string& data_identity) {
  return {.step = 0,
          .updates_done = 0,
          .tokens_seen = 0,
          .model_json = model::to_json(resolved.decoder),
          .config_hash = resolved.training_hash,
          .tokenizer_name = resolved.run.data.tokenizer,
          .tokenizer_hash = tokenizer.hash(),
          .data_identity = data_identity,
          .global_batch_size = resolved.batch.global_batch_size(),
          .dp_size = resolved.mesh.dp_size,
          .tp_size = resolved.mesh.tp_size,
          .zero_stage = static_cast<int>(resolved.run.parallel.zero_stage),
          .settings = resolved.settings};
}

/// What of the checkpoint makes its position, or its values, mean something else here.
class ResumeCheck {
 public:
  ResumeCheck(const checkpoint::CheckpointInfo& info, const config::CheckpointConfig& config)
      : info_(info), config_(config) {}

  void model(const checkpoint::TrainState& fresh) {
    const model::DecoderConfig saved = saved_model();
    const auto now = model::decoder_config_from_json(fresh.model_json, "this run");
    if (saved == now) return;
    problems_.push_back(
        problem(cat("the checkpoint is of another model (",
                    checkpoint::one_line(model::differences(saved, now)), ")"))
            .at(info_.path.string())
            .remedy("Use the model section it was trained with, or train this model in another "
                    "run_dir."));
  }

  void tokenizer(const checkpoint::TrainState& fresh) {
    if (info_.state.tokenizer_hash == fresh.tokenizer_hash) return;
    refuse("data.tokenizer",
           cat("the checkpoint was trained with another tokenizer ('",
               checkpoint::one_line(info_.state.tokenizer_name), "')"),
           "Use that data.tokenizer");
  }

  /// What decides which sequences the next steps train on.
  void sequences(const checkpoint::TrainState& fresh) {
    if (info_.state.data_identity != fresh.data_identity) tokens(fresh);
    for (const Change& change : changed_settings(info_.state.settings, fresh.settings)) {
      if (info_.state.settings.empty() || !decides_the_sequences(change.key)) continue;
      refuse(change.key,
             cat(change.key, " is ", change.now, ", the checkpoint was trained with ",
                 checkpoint::one_line(change.before),
                 ": the data position would mean other sequences"),
             cat("Set ", change.key, " back"));
    }
  }

  void global_batch(const checkpoint::TrainState& fresh) {
    if (info_.state.global_batch_size == fresh.global_batch_size) return;
    refuse("train.global_batch_size",
           cat("the checkpoint's global batch is ", info_.state.global_batch_size,
               " sequences, this run's is ", fresh.global_batch_size),
           cat("Set train.global_batch_size: ", info_.state.global_batch_size,
               " (it works with any dp size that divides it)"));
  }

  void throw_if_any() const {
    if (!problems_.empty()) throw CheckpointError(problems_);
  }

 private:
  /// Other text, or the same text read in another way.
  void tokens(const checkpoint::TrainState& fresh) {
    std::vector<Change> reading;
    if (!info_.state.settings.empty())
      reading = changed_settings(info_.state.settings, fresh.settings);
    std::erase_if(reading, [](const Change& change) {
      return !change.key.starts_with("data.train_on") && change.key != "data.chat_template" &&
             change.key != "data.text_key" && change.key != "data.max_bad_fraction";
    });
    if (reading.empty()) {
      refuse("data.train",
             "data.train holds other text than when the checkpoint was written, or mixes its "
             "sources otherwise: the data position would mean other sequences",
             "Put it back");
      return;
    }
    refuse("data.train",
           cat("data.train gives other tokens than when the checkpoint was written (",
               checkpoint::one_line(text_of(reading)),
               "): the data position would mean other sequences"),
           "Set that back");
  }

  model::DecoderConfig saved_model() const {
    try {
      return model::decoder_config_from_json(info_.state.model_json, "its manifest");
    } catch (const ConfigError& e) {
      throw CheckpointError(
          problem(cat("the checkpoint's model cannot be read: ", checkpoint::plain_message(e)))
              .at(info_.path.string())
              .remedy("Resume from another checkpoint."));
    }
  }

  void refuse(const std::string& key, const std::string& what, const std::string& fix) {
    const std::vector<std::string>& allowed = config_.allow_changes;
    if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) return;
    problems_.push_back(
        problem(what)
            .at(info_.path.string())
            .remedy(cat(fix,
                        ", start anew in another run_dir, or go on with the change by "
                        "checkpoint.allow_changes: [",
                        key, "].")));
  }

  const checkpoint::CheckpointInfo& info_;
  const config::CheckpointConfig& config_;
  std::vector<Problem> problems_;
};

void check_resumable(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                     const config::RunConfig& run) {
  ResumeCheck check(info, run.checkpoint);
  check.model(fresh);
  check.tokenizer(fresh);
  if (info.state.step < run.train.max_steps) check.sequences(fresh);
  check.global_batch(fresh);
  check.throw_if_any();
}

/// What another rule has kept is no state of this one.
void check_update_rule(const checkpoint::CheckpointInfo& info, Engine& engine,
                       const std::string& type) {
  const optim::UpdateRule& rule = optim::update_rule(type);
  std::set<std::string> wanted;  // of what trains: a rule may keep this of some and that of others
  for (const parameters::Parameter* parameter : engine.decoder().parameters()) {
    if (!parameter->trains) continue;
    const std::vector<std::string>& slots = rule.slots(rule.unit(*parameter));
    wanted.insert(slots.begin(), slots.end());
  }
  std::vector<std::string> kept;
  for (const sharding::StateKind& kind : info.kinds) {
    if (kind != sharding::kMaster) kept.push_back(kind);
  }
  if (std::set(kept.begin(), kept.end()) == wanted) return;
  const std::string trained_with = optim::rule_keeping(kept);
  throw CheckpointError(
      problem(cat("the checkpoint was trained with ",
                  trained_with.empty() ? std::string("another update rule") : trained_with,
                  " (it keeps ", join(kept, " and "), "), and optimizer.type is ", type, " (",
                  join(rule.all_slots(), " and "), ")"))
          .at(info.path.string())
          .remedy(trained_with.empty() ? std::string("Train in another run_dir.")
                                       : cat("Set optimizer.type to ", trained_with,
                                             ", or train in another run_dir.")));
}

/// `never` asks for a run of its own settings: under others it is not the run that is going on.
void check_same_run(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh) {
  const std::vector<Change> changes = changed_settings(info.state.settings, fresh.settings);
  if (changes.empty()) return;
  throw ConfigError(
      problem(cat("checkpoint.resume is never, and run_dir holds the checkpoints of a run with "
                  "other settings (",
                  checkpoint::one_line(text_of(changes)), ")"))
          .at(info.path.string())
          .remedy("Set run_dir to another directory for a new run, or checkpoint.resume to auto to "
                  "go on with that one under the new settings."));
}

std::string wire_of(const checkpoint::Start& start) {
  return cat(static_cast<int>(start.from), checkpoint::identity_text(start.run));
}

bool holds_something(const std::filesystem::path& file) {
  std::error_code error;  // what cannot be looked at is judged by its writer
  return std::filesystem::is_regular_file(file, error) &&
         std::filesystem::file_size(file, error) > 0;
}

struct Beginning {
  std::optional<checkpoint::CheckpointInfo> from;
  checkpoint::RunIdentity run;
};

/// Rank 0 looks at run_dir and decides. Collective.
Beginning find_beginning(checkpoint::CheckpointStore& store, comm::MpiSession& session,
                         const config::RunConfig& run, Logger& log) {
  using checkpoint::Start;
  const std::string& resume = run.checkpoint.resume;
  Start start;
  const checkpoint::CheckpointStore::Found found =
      store.newest([&](const std::vector<checkpoint::Verdict>& held) {
        start = checkpoint::choose_start(
            resume,
            {.run_dir = run.run_dir,
             .checkpoints = held,
             .current = checkpoint::read_run_identity(run.run_dir),
             .has_metrics = holds_something(std::filesystem::path(run.run_dir) / "metrics.jsonl")});
        return start.candidates;
      });
  if (session.rank() == 0) {
    for (const std::string& line : found.refused) log.warn(line);
  }
  if (found.info) return {.from = found.info, .run = found.info->state.run};
  const std::string wire = session.broadcast(session.rank() == 0 ? wire_of(start) : "", 0);
  start.from = static_cast<Start::From>(wire.front() - '0');
  Beginning beginning{.from = {}, .run = checkpoint::parse_identity(wire.substr(1))};
  if (start.from == Start::From::path) {
    beginning.from = store.open(resume);
    beginning.run.origins = beginning.from->state.run.origins;
    beginning.run.origins.push_back(beginning.from->save_id);
  }
  return beginning;
}

/// Which checkpoint checkpoint.init_from means: by manifest alone, the store looks at its contents.
std::string weights_to_begin_with(comm::MpiSession& session, const std::string& init_from) {
  std::string path;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    const checkpoint::Verdict newest =
        checkpoint::find_checkpoints(init_from, checkpoint::Depth::manifest).front();
    if (!newest.info) throw CheckpointError(problem(newest.problem).at(newest.path.string()));
    path = newest.path.string();
  });
  return session.broadcast(path, 0);
}

/// The weights of another run; the update rule's state is that of a run that begins. Collective.
void begin_with_weights_of(const StartParts& parts, const std::string& init_from,
                           checkpoint::TrainState& state) {
  const auto begin = std::chrono::steady_clock::now();
  const checkpoint::CheckpointInfo from =
      parts.store.open(weights_to_begin_with(parts.session, init_from));
  zero::ZeroOptimizer& zero = parts.engine.zero();
  zero.initialise(parts.resolved.run.train.seed);  // clears what the update rule keeps
  sharding::StateDict weights = zero.state_dict();
  std::erase_if(weights.pieces,
                [](const sharding::StatePiece& piece) { return piece.kind != sharding::kMaster; });
  parts.store.load_weights_into(weights, from);
  zero.state_loaded(/*updates_done=*/0);
  state.base_path = from.path.string();
  state.base_identity = from.save_id;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  parts.log.info(cat("start: the weights of ", from.path.string(), ", step ", from.state.step,
                     ", read in ", fixed(seconds.count(), 2), " s"));
}

/// The first values of the parameters; `state` gets the identity of the weights they are.
/// Collective.
void begin_anew(const StartParts& parts, checkpoint::TrainState& state) {
  const auto& [session, resolved, engine, store, log] = parts;
  const config::RunConfig& run = resolved.run;
  if (!run.checkpoint.init_from.empty())
    return begin_with_weights_of(parts, run.checkpoint.init_from, state);
  const auto until_stopped = [&session](const std::function<void()>& work) {
    comm::agree(session, work, OnStop::give_up);
  };
  if (run.model.init == config::Init::random) {
    const Work work("drawing initial values");
    engine.zero().initialise(run.train.seed, until_stopped);
    log.info(cat("start: random values from seed ", run.train.seed));
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  std::optional<checkpoint::HuggingFaceSource> weights;
  until_stopped([&] { weights.emplace(run.model.path, model::stored_model(resolved.decoder)); });
  std::string identity;
  until_stopped([&] { identity = checkpoint::weights_identity(weights->files()); });
  agree_on_facts(session, {{.name = cat("the weights of ", run.model.path),
                            .value = identity,
                            .remedy = "Put the same copy of model.path on every host."}});
  state.base_path = run.model.path;
  state.base_identity = sha256_hex(identity);
  engine.zero().load_parameters(*weights, until_stopped);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  log.info(cat("start: the weights of ", run.model.path, " (",
               formats::dtype_name(weights->stored_dtype()), "), read in ",
               fixed(seconds.count(), 2), " s"));
}

/// What the run goes on with otherwise than before: one line, or none.
void log_changed_settings(const checkpoint::CheckpointInfo& from, const checkpoint::TrainState& now,
                          Logger& log) {
  if (from.state.settings.empty()) {
    if (from.state.config_hash != now.config_hash)
      log.warn(cat("resume: some settings may have changed since ", from.path.string(),
                   ", which does not tell its own"));
    return;
  }
  const std::vector<Change> changes = changed_settings(from.state.settings, now.settings);
  if (!changes.empty())
    log.warn(cat("resume: settings changed: ", checkpoint::one_line(text_of(changes))));
}

}  // namespace

bool owes_evaluation(comm::MpiSession& session, const config::RunConfig& run, int64_t step,
                     const Cadence& evaluations) {
  const bool due = step == run.train.max_steps || evaluations.due(step);
  if (run.data.eval.empty() || !due) return false;
  bool recorded = false;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    recorded =
        metrics::holds_evaluation(std::filesystem::path(run.run_dir) / "metrics.jsonl", step);
  });
  return session.max(recorded ? 1 : 0) == 0;
}

std::optional<Started> start_or_resume(const StartParts& parts,
                                       const tokenizer::Tokenizer& tokenizer,
                                       const std::string& data_identity) {
  const auto& [session, resolved, engine, store, log] = parts;
  const config::RunConfig& run = resolved.run;
  const Beginning beginning = find_beginning(store, session, run, log);
  Started started{.state = fresh_state(resolved, tokenizer, data_identity)};
  checkpoint::TrainState& state = started.state;
  state.run = beginning.run;
  if (!beginning.from) {
    begin_anew(parts, state);
    return started;
  }
  const checkpoint::CheckpointInfo& from = *beginning.from;
  comm::agree(session, [&] {
    if (run.checkpoint.resume == "never") check_same_run(from, state);
    check_resumable(from, state, run);
    check_update_rule(from, engine, run.optimizer.type);
  });
  if (session.rank() == 0) log_changed_settings(from, state, log);
  if (from.state.step > run.train.max_steps ||
      (from.state.step == run.train.max_steps &&
       !owes_evaluation(session, run, run.train.max_steps, {}))) {
    log.info(cat("nothing to train: ", from.path.string(), " is at step ", from.state.step,
                 " of train.max_steps ", run.train.max_steps));
    // What the last save could not remove, perhaps; of the run that goes on alone.
    if (from.state.run.id == beginning.run.id) store.retain(from);
    for (const std::string& line : store.retention_problems()) log.warn(line);
    return std::nullopt;
  }
  sharding::StateDict pieces = engine.zero().state_dict();
  store.load_into(pieces, from);
  engine.zero().state_loaded(from.state.updates_done);
  state.step = from.state.step;
  state.updates_done = from.state.updates_done;
  state.tokens_seen = from.state.tokens_seen;
  state.extra = from.state.extra;
  state.base_path = from.state.base_path;
  state.base_identity = from.state.base_identity;
  started.from_run = from.state.run.id;
  log.info(cat("resume: ", from.path.string(), ", step ", state.step, ", ",
               with_thousands(state.tokens_seen), " tokens seen"));
  return started;
}

}  // namespace tptrain::train
