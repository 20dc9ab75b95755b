#include "train/start.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "adapters/peft_files.h"
#include "base/directory.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/huggingface_files.h"
#include "checkpoint/lineage.h"
#include "checkpoint/manifest.h"
#include "metrics/jsonl_writer.h"
#include "model/adapter.h"
#include "train/adapter_start.h"
#include "train/base_model.h"
#include "train/host_agreement.h"
#include "train/resume_check.h"

namespace tptrain::train {
namespace {

std::map<std::string, std::string> extra_of(const ResolvedConfig& resolved) {
  if (!resolved.run.adapter) return {};
  return {{kAdapterExtra, model::to_json(*resolved.run.adapter)}};
}

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
          .settings = resolved.settings,
          .extra = extra_of(resolved)};
}

std::string wire_of(const checkpoint::Start& start) {
  return cat(static_cast<int>(start.from), checkpoint::identity_text(start.run));
}

struct Beginning {
  std::optional<checkpoint::CheckpointInfo> from;
  checkpoint::RunIdentity run;
};

/// Rank 0 looks at run_dir and decides. Collective.
Beginning find_beginning(checkpoint::CheckpointStore& store, comm::MpiSession& session,
                         const config::RunConfig& run, Logger& log) {
  using checkpoint::Start;
  Start start;
  const checkpoint::CheckpointStore::Found found =
      store.newest([&](const std::vector<checkpoint::Verdict>& held) {
        start = checkpoint::choose_start(
            run.checkpoint,
            {.run_dir = run.run_dir,
             .checkpoints = held,
             .current = checkpoint::read_run_identity(run.run_dir),
             .has_metrics = is_filled_file(std::filesystem::path(run.run_dir) / "metrics.jsonl")});
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
    beginning.from = store.open(run.checkpoint.resume);
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

UntilStopped until_stopped(comm::MpiSession& session) {
  return [&session](const std::function<void()>& work) {
    comm::agree(session, work, OnStop::give_up);
  };
}

/// The values of model.adapter; null where it names none. Hosts whose files differ are refused.
/// Collective.
std::unique_ptr<sharding::TensorSource> open_adapter(const StartParts& parts) {
  const config::RunConfig& run = parts.resolved.run;
  const std::string& directory = run.model.adapter;
  if (directory.empty()) return nullptr;
  const UntilStopped locally = until_stopped(parts.session);
  std::unique_ptr<sharding::TensorSource> values;
  std::string facts;
  locally([&] {
    values = adapters::open_peft(directory, parts.resolved.decoder, *run.adapter);
    facts = checkpoint::weights_identity({directory, adapters::kPeftWeightsName});
  });
  agree_on_facts(parts.session, {{.name = cat("the adapter of ", directory),
                                  .value = facts,
                                  .remedy = "Put the same copy of model.adapter on every host."}});
  return values;
}

/// The base of a run with adapters, and first values of theirs, `earlier`'s or drawn; `state` gets
/// the base's identity. Collective.
void load_beside_base(const StartParts& parts, const BaseModel& base,
                      const sharding::TensorSource* earlier, checkpoint::TrainState& state) {
  const config::RunConfig& run = parts.resolved.run;
  const UntilStopped locally = until_stopped(parts.session);
  const AdapterStart values(parts.engine.decoder(),
                            {.base = base.weights ? &*base.weights : nullptr,
                             .adapter = earlier,
                             .seed = run.train.seed});
  parts.engine.state().load_parameters(values, locally);
  locally([&] { parts.engine.load_packed(values); });
  state.base_path = base.weights ? run.model.path : "";
  state.base_identity = base.weights ? sha256_hex(base.facts) : "";
  state.extra[kBaseFactsExtra] = base.facts;
}

/// The weights of another run; the update rule's state is that of a run that begins. Collective.
void begin_with_weights_of(const StartParts& parts, const std::string& init_from,
                           checkpoint::TrainState& state) {
  const auto begin = std::chrono::steady_clock::now();
  const checkpoint::CheckpointInfo from =
      parts.store.open(weights_to_begin_with(parts.session, init_from));
  comm::agree(parts.session, [&] { check_same_adapter(from, state, parts.resolved.run); });
  zero::ShardedState& live = parts.engine.state();
  if (parts.resolved.run.adapter) {
    const BaseModel base = open_base(parts.session, parts.resolved, until_stopped(parts.session));
    comm::agree(parts.session, [&] { check_same_base(from, base, parts.resolved.run.model.path); });
    load_beside_base(parts, base, nullptr, state);
  } else {
    live.initialise(parts.resolved.run.train.seed);  // clears what the update rule keeps
    state.base_path = from.path.string();
    state.base_identity = from.save_id;
  }
  sharding::StateDict weights = live.state_dict();
  std::erase_if(weights.pieces,
                [](const sharding::StatePiece& piece) { return piece.kind != sharding::kMaster; });
  parts.store.load_weights_into(weights, from);
  live.state_loaded(/*updates_done=*/0);
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
  const UntilStopped locally = until_stopped(session);
  if (run.model.init == config::Init::random && !run.adapter) {
    const Work work("drawing initial values");
    engine.state().initialise(run.train.seed, locally);
    log.info(cat("start: random values from seed ", run.train.seed));
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  const BaseModel base = open_base(session, resolved, locally);
  if (run.adapter) {
    load_beside_base(parts, base, open_adapter(parts).get(), state);
  } else {
    state.base_path = run.model.path;
    state.base_identity = sha256_hex(base.facts);
    engine.state().load_parameters(*base.weights, locally);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const std::string beside = !run.adapter ? std::string()
                             : run.model.adapter.empty()
                                 ? std::string("a new adapter beside ")
                                 : cat("the adapter of ", run.model.adapter, " beside ");
  if (!base.weights) {
    log.info(cat("start: ", beside, "random values from seed ", run.train.seed));
    return;
  }
  log.info(cat("start: ", beside, "the weights of ", run.model.path, " (",
               formats::dtype_name(base.weights->stored_dtype()), "), read in ",
               fixed(seconds.count(), 2), " s"));
}

/// What the run goes on with otherwise than before: a line or two, or none.
void log_changed_settings(const checkpoint::CheckpointInfo& from, const checkpoint::TrainState& now,
                          const config::RunConfig& run, Logger& log) {
  if (from.state.settings.empty()) {
    if (from.state.config_hash != now.config_hash)
      log.warn(cat("resume: some settings may have changed since ", from.path.string(),
                   ", which does not tell its own"));
    return;
  }
  const std::vector<Change> changes = changed_settings(from.state.settings, now.settings);
  if (!changes.empty())
    log.warn(cat("resume: settings changed: ", checkpoint::one_line(text_of(changes))));
  const std::string schedule = moved_schedule(from.state.settings, run, from.state.step);
  if (!schedule.empty()) log.warn(cat("resume: ", schedule));
}

}  // namespace

bool owes_evaluation(comm::MpiSession& session, const config::RunConfig& run, int64_t step,
                     const Cadence& evaluations) {
  const bool due = step == run.train.max_steps || evaluations.due(step);
  if (!run.data.evaluates() || !due) return false;
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
    if (run.checkpoint.resumes() == config::Resume::never) check_same_run(from, state);
    check_resumable(from, state, run);
    check_update_rule(from, engine, run.optimizer);
  });
  if (session.rank() == 0) log_changed_settings(from, state, run, log);
  if (from.state.step >= run.train.max_steps) {
    // No save will come. What the last one could not remove, perhaps; of the run that goes on
    // alone.
    if (from.state.run.id == beginning.run.id) store.retain(from);
    for (const std::string& line : store.retention_problems()) log.warn(line);
    if (from.state.step > run.train.max_steps ||
        !owes_evaluation(session, run, run.train.max_steps, {})) {
      log.info(cat("nothing to train: ", from.path.string(), " is at step ", from.state.step,
                   " of train.max_steps ", run.train.max_steps));
      return std::nullopt;
    }
  }
  if (run.adapter) {
    const BaseModel base = open_base(session, resolved, until_stopped(session));
    comm::agree(session, [&] { check_same_base(from, base, run.model.path); });
    load_beside_base(parts, base, nullptr, state);
  } else {
    state.base_path = from.state.base_path;
    state.base_identity = from.state.base_identity;
  }
  load_state(parts, from, state);
  started.from = from;
  // What another part of the program has put there goes on; this run's own values are those of now.
  state.extra.insert(from.state.extra.begin(), from.state.extra.end());
  started.from_run = from.state.run.id;
  log.info(cat("resume: ", from.path.string(), ", step ", state.step, ", ",
               with_thousands(state.tokens_seen), " tokens seen"));
  return started;
}

}  // namespace tptrain::train
