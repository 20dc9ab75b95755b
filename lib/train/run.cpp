#include "train/run.h"

#include <ATen/Parallel.h>

#include <filesystem>
#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_files.h"
#include "checkpoint/shared_directory.h"
#include "comm/device_mesh.h"
#include "config/parse.h"
#include "kernels/cpu/allocation.h"
#include "model/decoder_config.h"
#include "optim/parameter_groups.h"
#include "tokenizer/tokenizer.h"
#include "train/device_facts.h"
#include "train/engine.h"
#include "train/resolve.h"
#include "train/start.h"
#include "train/stop_request.h"
#include "train/trainer.h"
#include "train/training_data.h"

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

/// What is about to be trained, and in which numbers.
void log_model(const ResolvedConfig& resolved, Logger& log) {
  const config::RunConfig& run = resolved.run;
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
    if (session.rank() == 0) lock.emplace(run_dir / ".lock");
  });
  Logger log({.rank = session.rank(),
              .world_size = session.size(),
              .console = true,
              .file = (run_dir / "log.txt").string()});
  comm::DeviceMesh mesh(session, resolved.mesh, resolved.device);
  log.info(mesh.picture());

  const TrainingData data = prepare_data(session, resolved, *tokenizer, log);

  Engine engine(engine_options(resolved), mesh.tp(), mesh.dp(), mesh.device());
  comm::agree(session, [&] { check_parameter_groups(run.optimizer, engine.decoder()); });
  log_model(resolved, log);

  checkpoint::CheckpointStore store(
      session, {.directory = run_dir / "checkpoints", .keep = run.checkpoint.keep});
  const std::optional<checkpoint::TrainState> state = start_or_resume(
      {.session = session, .resolved = resolved, .engine = engine, .store = store, .log = log},
      *tokenizer, data.train_tokens);
  if (!state) return ExitCode::done;  // nothing is left to train
  comm::agree(session, [&] {
    if (session.rank() == 0)
      checkpoint::keep_model_files(run_dir, run.model.path, run.data.tokenizer);
  });

  std::optional<metrics::JsonlWriter> jsonl;
  std::optional<metrics::ProgressDisplay> progress;
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    write_file_atomically(run_dir / "resolved_config.yaml", config::to_yaml(run));
    jsonl.emplace(run_dir / "metrics.jsonl", state->step);
    progress.emplace(state->step, run.train.max_steps, true);
  });

  const StopRequest stop;
  Trainer trainer({.config = resolved,
                   .session = session,
                   .mesh = mesh,
                   .engine = engine,
                   .train_data = *data.train,
                   .eval_data = data.eval ? &*data.eval : nullptr,
                   .store = store,
                   .log = log,
                   .jsonl = jsonl ? &*jsonl : nullptr,
                   .progress = progress ? &*progress : nullptr,
                   .stop = stop,
                   .process_start = request.process_start});
  const RunOutcome outcome = trainer.run(*state);
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
