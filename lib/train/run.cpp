#include "train/run.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/model_files.h"
#include "checkpoint/shared_directory.h"
#include "comm/device_mesh.h"
#include "config/parse.h"
#include "data/token_store.h"
#include "kernels/cpu/allocation.h"
#include "model/decoder_config.h"
#include "model/families/family.h"
#include "optim/parameter_groups.h"
#include "tokenizer/tokenizer.h"
#include "train/device_facts.h"
#include "train/engine.h"
#include "train/resolve.h"
#include "train/stop_request.h"
#include "train/trainer.h"

namespace tptrain::train {
namespace {

namespace fs = std::filesystem;

std::string broadcast_config_text(comm::MpiSession& session, const std::string& path) {
  std::string text;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    try {
      text = read_file(path, 1 << 24);
    } catch (const Error& error) {
      throw ConfigError(problem(cat("the run file cannot be read (", error.what(), ")"))
                            .at(path)
                            .remedy("Check the path given with --config."));
    }
  });
  return session.broadcast(text, 0);
}

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
                                  {"rebuilt_because", prepared.rebuilt_because}};
  const nlohmann::json received = nlohmann::json::parse(session.broadcast(message.dump(), 0));
  return {.path = received["path"].get<std::string>(),
          .identity = received["identity"],
          .tokens = received["tokens"],
          .documents = received["documents"],
          .split = split,
          .rebuilt_because = received["rebuilt_because"]};
}

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

std::optional<checkpoint::CheckpointInfo> checkpoint_to_resume(checkpoint::CheckpointStore& store,
                                                               const std::string& resume,
                                                               Logger& log) {
  if (resume == "never") return std::nullopt;
  if (resume != "auto") return store.open(resume);
  const checkpoint::CheckpointStore::Found found = store.newest();
  for (const std::string& line : found.refused) log.warn(line);
  return found.info;
}

void prepare_host(const config::TrainConfig& train, const comm::MpiSession& session,
                  comm::DeviceType device) {
  const int automatic = std::max(1, available_cores() / session.local_size());
  at::set_num_threads(train.cpu_threads > 0 ? static_cast<int>(train.cpu_threads) : automatic);
  // Activations come and go each step: given back to the kernel they would be faulted in again,
  // page by page.
  if (device == comm::DeviceType::cpu) kernels::cpu::retain_freed_memory();
}

at::ScalarType scalar_type(const std::string& dtype) {
  return dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

Engine::Options engine_options(const ResolvedConfig& resolved) {
  const config::RunConfig& run = resolved.run;
  using tensor_parallel::SequenceParallel;
  return {.decoder = resolved.decoder,
          .training = {.sequence_parallel = run.parallel.sequence_parallel ? SequenceParallel::on
                                                                           : SequenceParallel::off,
                       .recompute = run.parallel.recompute == "full" ? model::Recompute::full
                                    : run.parallel.recompute == "selective"
                                        ? model::Recompute::selective
                                        : model::Recompute::none,
                       .attention_dropout = run.train.attention_dropout,
                       .residual_dropout = run.train.residual_dropout,
                       .z_loss = run.train.z_loss,
                       .seed = run.train.seed},
          .zero = {.zero_stage = static_cast<int>(run.parallel.zero_stage),
                   .optimizer = run.optimizer,
                   .reduce_per_micro_batch = run.parallel.reduce_gradients == "per_micro_batch",
                   .reduce_dtype = scalar_type(run.parallel.reduce_dtype),
                   .seed = run.train.seed},
          .dtype = scalar_type(run.train.dtype)};
}

/// Refuses a group of optimizer.groups that decides for no tensor: a typo would change the
/// training.
void check_parameter_groups(const config::OptimizerConfig& optimizer,
                            const model::Decoder& decoder) {
  std::vector<std::string> names;
  for (const sharding::Parameter* parameter : decoder.parameters()) {
    for (const sharding::NamedSlice& slice : parameter->slices) names.push_back(slice.spec.name);
  }
  const std::vector<Problem> problems = optim::check_groups(optimizer, names);
  if (!problems.empty()) throw ConfigError(problems);
}

/// "rank 0: 1.2 GiB, rank 1: ...". Collective.
std::string peak_memory_of_ranks(comm::MpiSession& session, at::Device device) {
  std::vector<std::string> parts;
  const std::vector<std::string> all =
      session.all_gather(human_bytes(memory_use(device).peak_bytes));
  for (size_t rank = 0; rank < all.size(); ++rank)
    parts.push_back(cat("rank ", rank, ": ", all[rank]));
  return join(parts);
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

ExitCode run_training(comm::MpiSession& session, const RunRequest& request) {
  const std::string text = broadcast_config_text(session, request.config_path);

  ResolvedConfig resolved;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  comm::agree(session, [&] {
    const config::Parsed parsed =
        config::parse_run_config(text, request.config_path, request.overrides);
    tokenizer = tokenizer::make_tokenizer(tokenizer_of(parsed.config));
    const model::DecoderConfig decoder =
        model::decoder_config(parsed.config.model, tokenizer->vocab_size());
    resolved = resolve(parsed, decoder, tokenizer->vocab_size(), session.size());
  });
  const config::RunConfig& run = resolved.run;
  const fs::path run_dir = run.run_dir;
  prepare_host(run.train, session, resolved.device);

  checkpoint::check_shared_directory(session, run_dir);  // creates it
  std::optional<FileLock> lock;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    lock.emplace(run_dir / ".lock");
    checkpoint::keep_model_files(run_dir, run.model.path, run.data.tokenizer);
  });
  Logger log({.rank = session.rank(),
              .world_size = session.size(),
              .console = true,
              .file = (run_dir / "log.txt").string()});
  comm::DeviceMesh mesh(session, resolved.mesh, resolved.device);
  log.info(mesh.picture());

  const data::PreparedTokens train_tokens =
      prepare(session, corpus_of(resolved, run.data.train), *tokenizer, run_dir / "data", "train");
  std::optional<data::BatchSampler> train_data;
  std::optional<data::BatchSampler> eval_data;
  data::PreparedTokens eval_tokens;
  if (!run.data.eval.empty())
    eval_tokens =
        prepare(session, corpus_of(resolved, run.data.eval), *tokenizer, run_dir / "data", "eval");
  const data::Packing packing = data::packing_of(run.data.packing);
  comm::agree(session, [&] {
    train_data.emplace(train_tokens, resolved.batch,
                       data::SamplerOptions{.seed = run.train.seed,
                                            .shuffle = run.data.shuffle,
                                            .packing = packing});
    if (run.data.eval.empty()) return;
    data::BatchShape shape = resolved.batch;
    shape.accumulation = 1;
    eval_data.emplace(eval_tokens, shape,
                      data::SamplerOptions{
                          .seed = run.train.seed, .shuffle = false, .packing = packing});
  });
  for (const data::PreparedTokens& prepared : {train_tokens, eval_tokens}) {
    if (!prepared.rebuilt_because.empty())
      log.warn(cat("data: tokens made anew: ", prepared.rebuilt_because));
  }
  log.info(cat("data: ", with_thousands(train_tokens.tokens), " tokens in ", train_tokens.documents,
               " documents, ", with_thousands(train_data->windows()), " sequences of ",
               resolved.batch.seq_length, "; held out: ", with_thousands(eval_tokens.tokens),
               " tokens"));
  if (session.rank() == 0 && train_data->truncated() > 0)
    log.warn(
        cat("data: ", with_thousands(train_data->truncated()), " of ", train_tokens.documents,
            " documents are longer than train.seq_length + 1 = ", resolved.batch.seq_length + 1,
            " tokens; data.packing is none, so what is beyond is left out"));

  Engine engine(engine_options(resolved), mesh.tp(), mesh.dp(), mesh.device());
  comm::agree(session, [&] { check_parameter_groups(run.optimizer, engine.decoder()); });
  log.info(cat("model: ", resolved.decoder.model_type, ", ",
               with_thousands(model::parameter_count(resolved.decoder)), " parameters; ZeRO-",
               run.parallel.zero_stage, "; global batch ", resolved.batch.global_batch_size(),
               " sequences = ",
               with_thousands(resolved.batch.global_batch_size() * resolved.batch.seq_length),
               " tokens (", resolved.batch.accumulation, " micro-batches a dp rank)"));
  log.info(
      cat("numbers: weights and activations ", run.train.dtype, ", gradients summed ",
          run.parallel.reduce_gradients, " in ", run.parallel.reduce_dtype,
          run.parallel.tp_size > 1 && run.parallel.sequence_parallel ? "; sequence parallel" : "",
          run.parallel.recompute == "none" ? "" : cat("; recompute ", run.parallel.recompute)));
  if (run.train.attention_dropout > 0)
    log.warn(
        "train.attention_dropout is above 0: attention takes the unfused path, which is slower "
        "and makes the probabilities of one head at a time");

  checkpoint::CheckpointStore store(
      session, {.directory = run_dir / "checkpoints", .keep = run.checkpoint.keep});
  checkpoint::TrainState state = fresh_state(resolved, *tokenizer, train_tokens);
  if (const auto from = checkpoint_to_resume(store, run.checkpoint.resume, log)) {
    comm::agree(session, [&] { check_resumable(*from, state, run.train.max_steps); });
    if (from->state.config_hash != state.config_hash)
      log.warn(cat("resume: the settings differ from those ", from->path.string(),
                   " was trained with; going on with this file's"));
    if (from->state.step >= run.train.max_steps) {
      log.info(cat("nothing to train: ", from->path.string(), " is at step ", from->state.step,
                   " of train.max_steps ", run.train.max_steps));
      return ExitCode::done;
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

  std::optional<metrics::JsonlWriter> jsonl;
  std::optional<metrics::ProgressDisplay> progress;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    write_file_atomically(run_dir / "resolved_config.yaml", config::to_yaml(run));
    jsonl.emplace(run_dir / "metrics.jsonl", state.step);
    progress.emplace(state.step, run.train.max_steps, true);
  });

  const StopRequest stop;
  Trainer trainer({.config = resolved,
                   .session = session,
                   .mesh = mesh,
                   .engine = engine,
                   .train_data = *train_data,
                   .eval_data = eval_data ? &*eval_data : nullptr,
                   .store = store,
                   .log = log,
                   .jsonl = jsonl ? &*jsonl : nullptr,
                   .progress = progress ? &*progress : nullptr,
                   .stop = stop,
                   .process_start = request.process_start});
  const RunOutcome outcome = trainer.run(state);
  progress.reset();

  log.info(cat(outcome.stopped_on_request ? "stopped on request at" : "done:", " step ",
               outcome.state.step, " of ", run.train.max_steps,
               outcome.eval_loss ? cat(", held-out loss ", fixed(*outcome.eval_loss, 4)) : ""));
  if (outcome.last_checkpoint)
    log.info(cat("  checkpoint: ", outcome.last_checkpoint->path.string()));
  log.info(cat("  peak memory: ", peak_memory_of_ranks(session, mesh.device())));
  log.info(cat("  metrics:    ", (run_dir / "metrics.jsonl").string()));
  log.info(cat("  log:        ", (run_dir / "log.txt").string()));
  session.barrier();
  return outcome.stopped_on_request ? ExitCode::stopped : ExitCode::done;
}

}  // namespace tptrain::train
