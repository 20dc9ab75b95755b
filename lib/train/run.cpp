#include "train/run.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/files.h"
#include "base/interruption.h"
#include "base/log.h"
#include "base/stop.h"
#include "base/terminal_line.h"
#include "base/text.h"
#include "base/watchdog.h"
#include "base/work.h"
#include "base/work_display.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_files.h"
#include "checkpoint/run_directory.h"
#include "comm/device_mesh.h"
#include "comm/mesh_picture.h"
#include "config/duration.h"
#include "config/parse.h"
#include "device/device_facts.h"
#include "device/device_info.h"
#include "inference/model_directory.h"
#include "kernels/cpu/allocation.h"
#include "kernels/kernels.h"
#include "metrics/hand_over.h"
#include "model/decoder_config.h"
#include "model/head_share.h"
#include "optim/parameter_groups.h"
#include "tokenizer/tokenizer.h"
#include "train/engine.h"
#include "train/evaluation.h"
#include "train/fp8_report.h"
#include "train/hang_timeout.h"
#include "train/host_agreement.h"
#include "train/out_of_memory.h"
#include "train/recording.h"
#include "train/resolve.h"
#include "train/run_log.h"
#include "train/run_options.h"
#include "train/snapshot_memory.h"
#include "train/start.h"
#include "train/time_limit.h"
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
      text = read_file(path, kMaxRunFileBytes);
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
  const int automatic = std::max(1, device::available_cores() / session.local_size());
  at::set_num_threads(train.cpu_threads > 0 ? static_cast<int>(train.cpu_threads) : automatic);
  // Activations come and go each step: given back to the kernel they would be faulted in again,
  // page by page.
  if (device == comm::DeviceType::cpu) kernels::cpu::retain_freed_memory();
  // Sums in fp32 and rounded once, also where a product left to ATen is cut along its inner size.
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  if (device == comm::DeviceType::cuda && train.deterministic) {
    // cuBLAS reads it when it starts: with workspaces of a fixed size it adds in a fixed order.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    // Nothing here reads memory that was not written: filling it first would only cost time.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
}

Engine::Options engine_options(const ResolvedConfig& resolved) {
  const config::RunConfig& run = resolved.run;
  return {.decoder = resolved.decoder,
          .training = training_options(run),
          .zero = zero_options(run),
          .dtype = scalar_type(run.train.dtype),
          .gradient_dtype = scalar_type(run.train.gradient_dtype),
          .cuda_graphs = run.train.cuda_graphs};
}

/// Refuses a group of optimizer.groups that decides for no tensor: a typo would change the
/// training.
void check_parameter_groups(const config::OptimizerConfig& optimizer,
                            const model::Decoder& decoder) {
  std::vector<std::string> names;
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    for (const parameters::NamedSlice& slice : parameter->slices) names.push_back(slice.spec.name);
  }
  const std::vector<Problem> problems = optim::check_groups(optimizer, names);
  if (!problems.empty()) throw ConfigError(problems);
}

/// What attention runs on, for the layout's share of heads.
kernels::AttentionBackend attention_of(const ResolvedConfig& resolved, comm::DeviceMesh& mesh) {
  const model::HeadShare share =
      model::head_share(resolved.decoder, mesh.tp_rank(), mesh.shape().tp_size);
  const kernels::AttentionShape shape = {.heads = share.heads.size(),
                                         .kv_heads = share.kv_heads.size(),
                                         .head_dim = resolved.decoder.head_dim};
  const int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const at::Tensor two_positions =
      at::empty({2, 1, width},
                at::TensorOptions(scalar_type(resolved.run.train.dtype)).device(mesh.device()));
  return kernels::attention_backend(two_positions, shape,
                                    resolved.run.data.document_mask
                                        ? kernels::AttentionMask::documents
                                        : kernels::AttentionMask::causal);
}

/// The GPUs, their libraries and links, and which attention they run. Collective.
void log_gpus(comm::MpiSession& session, comm::DeviceMesh& mesh, const ResolvedConfig& resolved,
              Logger& log) {
  if (resolved.device != comm::DeviceType::cuda) return;
  std::vector<device::GpuFacts> of_ranks;
  for (const std::string& wire : session.all_gather(
           to_wire(device::gpu_facts(mesh.device(), session.local_rank(), mesh.host_gpus())))) {
    of_ranks.push_back(device::gpu_facts_from_wire(wire));
  }
  const device::GpuReport report = device::gpu_report(of_ranks);
  for (const std::string& line : report.lines) log.info(line);
  log.info(cat("tensors travel by: ", mesh.transport()));
  if (!device::peak_flops(mesh.device(), scalar_type(resolved.run.train.dtype)))
    log.info(
        cat("mfu: left out, the peak of ", device::device_name(mesh.device()), " is not known"));
  if (session.rank() == 0) {
    for (const std::string& line : report.warnings) log.warn(line);
    for (const std::string& line : mesh.warnings()) log.warn(line);
  }
  if (resolved.run.train.attention_dropout > 0) return;  // a path of its own, with its own warning
  const kernels::AttentionBackend attention = attention_of(resolved, mesh);
  log.info(cat("attention: ", attention.name));
  if (session.rank() == 0 && !attention.slower_than.empty())
    log.warn(cat("attention: ", attention.name, " is slower than ", attention.slower_than));
}

/// What trains, in the order it is made; outlives a failure, which is looked at with it still
/// there.
struct Machine {
  std::optional<comm::DeviceMesh> mesh;
  std::optional<Engine> engine;
};

comm::DeviceMesh& set_up_mesh(comm::MpiSession& session, const ResolvedConfig& resolved,
                              Machine& machine) {
  session.board()->enter("setting up the device mesh");
  const Work work("setting up the device mesh");
  return machine.mesh.emplace(session, resolved.mesh, resolved.device, comm::CpuOptions{},
                              axis_copies(resolved.run.parallel));
}

Engine& build_engine(const ResolvedConfig& resolved, comm::DeviceMesh& mesh, Machine& machine) {
  const Work work("building the model");
  return machine.engine.emplace(engine_options(resolved), mesh.tp(), mesh.dp(), mesh.device());
}

/// "step 3, forward and backward".
std::string doing(const ProgressBoard::Entry& entry) {
  return entry.step < 0 ? std::string(entry.phase) : cat("step ", entry.step, ", ", entry.phase);
}

ConfigError out_of_memory_error(const std::exception& error, const ResolvedConfig& resolved,
                                const std::string& doing, at::Device device) {
  const device::DeviceUse use = device::device_use(device);
  return ConfigError(
      out_of_memory_problem({.doing = doing,
                             .device_name = device::device_name(device),
                             .asked_for = bytes_asked_for(error.what()),
                             .use = use,
                             .forecast = forecast_memory(resolved, use.total_bytes)}));
}

/// The file of the log gets the watchdog's last words too; the console has them already.
Watchdog::Options watchdog_options(comm::MpiSession& session, const ResolvedConfig& resolved,
                                   const std::string& log_file) {
  const int rank = session.rank();
  const auto log_it = [rank, log_file](const std::string& message) {
    Logger({.rank = rank, .console = false, .file = log_file}).error(message);
  };
  return {.limit = std::chrono::seconds(resolved.run.train.hang_timeout_s),
          .rank = rank,
          .also_say = log_it};
}

/// run_dir/metrics.jsonl and .run.json become those of the run that goes on or begins.
void take_run_dir_over(const fs::path& run_dir, const Started& started) {
  const std::string& run = started.state.run.id;
  const std::optional<checkpoint::RunIdentity> before = checkpoint::read_run_identity(run_dir);
  // Without a name on it metrics.jsonl is of the checkpoint's run, if that goes on.
  const std::string unnamed = started.from_run == run ? run : "";
  metrics::hand_over_metrics(
      run_dir, {.before = before ? before->id : unnamed, .now = run, .from = started.from_run});
  checkpoint::write_run_identity(run_dir, started.state.run);
}

TimeLimit time_limit_of(const config::RunConfig& run, const RunRequest& request) {
  const auto running = std::chrono::steady_clock::now() - request.process_start;
  return TimeLimit(
      {.process_start = std::chrono::system_clock::now() -
                        std::chrono::duration_cast<std::chrono::system_clock::duration>(running),
       .max_time_s = config::seconds_of(run.train.max_time),
       .job_end = slurm_job_end()});
}

/// A config.json that asks for dropout is not followed, and that is said.
void say_dropout_of(const ResolvedConfig& resolved, Logger& log) {
  const double asked = resolved.decoder.attention_dropout;
  const double used = resolved.run.train.attention_dropout;
  if (asked == 0 || asked == used) return;
  log.warn(cat("config.json has attention_dropout ", asked, ", this run uses ", used,
               ": dropout is train.attention_dropout's to say"));
}

ExitCode train(comm::MpiSession& session, const RunRequest& request, ResolvedConfig& resolved,
               const tokenizer::Tokenizer& tokenizer, const std::vector<std::string>& hosts,
               const checkpoint::RunDirectory& directory, Logger& log, TerminalLine& terminal,
               Machine& machine) {
  const config::RunConfig& run = resolved.run;
  const fs::path run_dir = run.run_dir;
  ProgressBoard& board = *session.board();

  comm::DeviceMesh& mesh = set_up_mesh(session, resolved, machine);
  log.info(comm::mesh_picture(mesh.shape(), mesh.device_type(), hosts));
  const std::string slow = tp_group_across_hosts(hosts, mesh.shape().tp_size);
  if (session.rank() == 0 && !slow.empty()) log.warn(slow);
  log_gpus(session, mesh, resolved, log);

  board.enter("tokenizing and opening the data");
  const TrainingData data = prepare_data(session, resolved, tokenizer, log);
  const Cadence saves = data.cadence(run.checkpoint.save_steps, run.checkpoint.save_epochs);
  const Cadence evaluations = data.cadence(run.eval.every_steps, run.eval.every_epochs);
  std::optional<Evaluation> evaluation;
  if (!data.eval.empty())
    evaluation.emplace(data.eval, run.eval.max_batches * resolved.batch.global_batch_size(),
                       session, mesh);

  board.enter("building the model");
  comm::agree(session, [&] { check_fp8(resolved, mesh.device()); });
  Engine& engine = build_engine(resolved, mesh, machine);
  comm::agree(
      session, [&] { check_parameter_groups(run.optimizer, engine.decoder()); }, OnStop::give_up);
  if (session.rank() == 0) {
    log_model(resolved, log);
    log_fp8(resolved, engine.decoder(), log);
  }

  board.enter("reading weights or a checkpoint");
  checkpoint::CheckpointStore store(
      session, {.directory = run_dir / "checkpoints",
                .keep = run.checkpoint.keep,
                .keep_every = run.checkpoint.keep_every,
                .keep_best = run.checkpoint.keep_best == config::KeepBest::eval_loss,
                .owner = directory.owner()});
  const std::optional<Started> started = start_or_resume(
      {.session = session, .resolved = resolved, .engine = engine, .store = store, .log = log},
      tokenizer, data::identity_of(data.sources));
  if (!started) return ExitCode::done;  // nothing is left to train
  const checkpoint::TrainState& state = started->state;
  const std::string space = store.require_space(engine.zero().state_dict(), state.run,
                                                saves.left(state.step, run.train.max_steps),
                                                staying_to_come(run, state.step));
  if (!space.empty()) log.warn(space);
  comm::agree(session, [&] {
    if (session.rank() == 0)
      checkpoint::keep_model_files(run_dir, run.model.path, run.data.tokenizer);
  });

  comm::agree(session, [&] {
    if (session.rank() == 0) take_run_dir_over(run_dir, *started);
  });
  Recording recording = begin_recording(session, resolved, state.step, log, terminal);

  const auto snapshot = run.checkpoint.async ? snapshot_for(session, hosts, engine, log) : nullptr;
  const TimeLimit time_limit = time_limit_of(run, request);
  Trainer trainer({.config = resolved,
                   .session = session,
                   .mesh = mesh,
                   .engine = engine,
                   .train_data = *data.train,
                   .evaluation = evaluation ? &*evaluation : nullptr,
                   .owes_evaluation = owes_evaluation(session, run, state.step, evaluations),
                   .best_loss = recording.best_loss,
                   .saves = saves,
                   .evaluations = evaluations,
                   .store = store,
                   .snapshot = snapshot.get(),
                   .log = log,
                   .recorder = recording.recorder ? &*recording.recorder : nullptr,
                   .progress = recording.progress ? &*recording.progress : nullptr,
                   .time_limit = time_limit,
                   .process_start = request.process_start},
                  state.step);
  const RunOutcome outcome = trainer.run(state);
  terminal.clear();
  board.enter("ending the run");

  say_outcome(outcome, run, log);
  log.info(cat("  peak memory: ", peak_memory_of_ranks(session, mesh.device())));
  session.barrier();
  return outcome.stopped_on_request ? ExitCode::stopped : ExitCode::done;
}

}  // namespace

ExitCode run_training(comm::MpiSession& session, const RunRequest& request) {
  session.board()->enter("reading the run file and the tokenizer");
  const std::string text = broadcast_config_text(session, request.config_path);

  ResolvedConfig resolved;
  config::Parsed parsed;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  comm::agree(
      session,
      [&] {
        parsed = config::parse_run_config(text, request.config_path, request.overrides);
        check_model_directory(parsed);
        tokenizer = tokenizer::make_tokenizer(tokenizer_of(parsed.config));
      },
      OnStop::give_up);
  const inference::DecidedModel decided =
      inference::decide_model(session, parsed.config.model, tokenizer->vocab_size());
  comm::agree(
      session,
      [&] { resolved = resolve(parsed, decided.decoder, tokenizer->vocab_size(), session.size()); },
      OnStop::give_up);
  const std::vector<std::string> hosts =
      agree_on_facts(session, facts_of(request.program, resolved, *tokenizer));
  const config::RunConfig& run = resolved.run;
  const fs::path run_dir = run.run_dir;
  prepare_host(run.train, session, resolved.device);

  const checkpoint::RunDirectory directory(session, run_dir);
  TerminalLine terminal(STDOUT_FILENO);
  std::optional<Logger> log;
  comm::agree(session, [&] {
    log.emplace(LogOptions{.rank = session.rank(),
                           .console = true,
                           .file = (run_dir / "log.txt").string(),
                           .terminal = &terminal});
  });
  if (session.rank() == 0) {
    for (const std::string& note : decided.notes) log->warn(note);
    say_dropout_of(resolved, *log);
  }
  for (const std::string& line : directory.warnings()) log->warn(line);
  request.watchdog.set(watchdog_options(session, resolved, (run_dir / "log.txt").string()));
  log_begin(session, request, *log);
  std::optional<WorkDisplay> display;
  if (session.rank() == 0)
    display.emplace(terminal, [&log](const std::string& line) { log->info(line); });
  Machine machine;
  try {
    return train(session, request, resolved, *tokenizer, hosts, directory, *log, terminal, machine);
  } catch (const std::exception& error) {
    const auto* own = dynamic_cast<const Error*>(&error);
    ProgressBoard& board = *session.board();
    if (own != nullptr && own->code() == ExitCode::stopped && own->agreed()) {
      log->info(cat(error.what(), " before the first step, ", board.read().phase,
                    ": there is nothing to save"));
      return ExitCode::stopped;
    }
    if (machine.mesh && resolved.device == comm::DeviceType::cuda && is_out_of_memory(error)) {
      ConfigError told =
          out_of_memory_error(error, resolved, doing(board.read()), machine.mesh->device());
      if (own != nullptr && own->agreed()) told.set_agreed();
      board.fail(told.code(), told.what());
      throw told;
    }
    // The machine is about to be taken down, which may wait for a rank that will not come.
    board.fail(own != nullptr ? own->code() : ExitCode::internal,
               own != nullptr ? error.what() : cat("internal error: ", error.what()));
    throw;
  }
}

}  // namespace tptrain::train
