#include "train/run.h"

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "base/cause.h"
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
#include "config/duration.h"
#include "config/parse.h"
#include "data/chat_rows.h"
#include "inference/model_directory.h"
#include "metrics/hand_over.h"
#include "tokenizer/tokenizer.h"
#include "train/engine.h"
#include "train/evaluation.h"
#include "train/hang_timeout.h"
#include "train/host_agreement.h"
#include "train/machine.h"
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
      // Its message begins with the path.
      throw ConfigError(problem(cause_of(error))
                            .remedy("Check the path given with --config; a relative one starts at "
                                    "the current directory."));
    }
  });
  return session.broadcast(text, 0);
}

/// "step 3, forward and backward".
std::string doing(const ProgressBoard::Entry& entry) {
  return entry.step < 0 ? std::string(entry.phase) : cat("step ", entry.step, ", ", entry.phase);
}

/// The file of the log gets the watchdog's last words too; the console has them already. Every
/// rank's: rank 0 may be the one that hangs, and log.txt is what is left to read.
Watchdog::Options watchdog_options(const RunRequest& request, const ResolvedConfig& resolved,
                                   const std::string& log_file) {
  Watchdog::Options options = comm::watchdog_options(
      request.boards, std::chrono::seconds(resolved.run.train.hang_timeout_s));
  options.also_say = [log_file](const std::string& message) {
    Logger({.rank = 0, .console = false, .file = log_file}).error(message);
  };
  return options;
}

/// The files of run_dir become those of the run that goes on or begins.
void take_run_dir_over(const config::RunConfig& config, const Started& started) {
  const fs::path run_dir = config.run_dir;
  checkpoint::keep_model_files(run_dir, config.model.path, config.data.tokenizer,
                               config.data.chat_template);
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

checkpoint::CheckpointStore::Options store_options(const config::RunConfig& run,
                                                   const checkpoint::RunDirectory& directory) {
  return {.directory = fs::path(run.run_dir) / "checkpoints",
          .keep = run.checkpoint.keep,
          .keep_every = run.checkpoint.keep_every,
          .keep_best = run.checkpoint.keep_best == config::KeepBest::eval_loss,
          .owner = directory.owner()};
}

// Long: a run in its order, and each part lives until the last line; cut, it would hand a dozen
// references on.
ExitCode train(comm::MpiSession& session, const RunRequest& request, ResolvedConfig& resolved,
               const tokenizer::Tokenizer& tokenizer, const std::vector<std::string>& hosts,
               const checkpoint::RunDirectory& directory, Logger& log, TerminalLine& terminal,
               Machine& machine) {
  const config::RunConfig& run = resolved.run;
  const fs::path run_dir = run.run_dir;
  ProgressBoard& board = *session.board();

  comm::DeviceMesh& mesh = set_up_mesh(session, resolved, hosts, log, machine);
  if (mesh.device().is_cuda()) request.boards->set_gpu(mesh.device().index());

  board.enter("tokenizing and opening the data");
  const TrainingData data = prepare_data(session, resolved, tokenizer, log);
  const Cadence saves = data.cadence(run.checkpoint.save_steps, run.checkpoint.save_epochs);
  const Cadence evaluations = data.cadence(run.eval.every_steps, run.eval.every_epochs);
  std::optional<Evaluation> evaluation;
  if (!data.eval.empty())
    evaluation.emplace(data.eval, run.eval.max_batches * resolved.batch.global_batch_size(),
                       session, mesh);

  Engine& engine = build_engine(session, resolved, log, machine);

  board.enter("reading weights or a checkpoint");
  checkpoint::CheckpointStore store(session, store_options(run, directory));
  const StartParts start{
      .session = session, .resolved = resolved, .engine = engine, .store = store, .log = log};
  const std::optional<Started> started =
      start_or_resume(start, tokenizer, data::identity_of(data.sources));
  if (!started) return ExitCode::done;  // nothing is left to train
  checkpoint::TrainState state = started->state;
  for (const data::SourceTokens& source : data.sources) {
    if (source.tokens.end_of_turn >= 0)
      state.extra[data::kEndOfTurnExtra] = std::to_string(source.tokens.end_of_turn);
  }
  OutlierGuard guard(run.train.guard);
  comm::agree(session, [&] {
    guard.restore(kept_guard(state), started->from ? started->from->path.string() : "");
  });
  const std::string space = store.require_space(engine.state().state_dict(), state.run,
                                                saves.left(state.step, run.train.max_steps),
                                                keep_every_saves_left(run, state.step));
  if (!space.empty()) log.warn(space);
  comm::agree(session, [&] {
    if (session.rank() == 0) take_run_dir_over(run, *started);
  });
  const auto snapshot = run.checkpoint.async ? snapshot_for(session, hosts, engine, log) : nullptr;
  const TimeLimit time_limit = time_limit_of(run, request);
  std::optional<checkpoint::CheckpointInfo> begun_at = started->from;
  RunOutcome outcome;
  while (true) {  // once more for each outlier that the run goes back for
    Recording recording = begin_recording(session, resolved, state.step, log, terminal);
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
                     .guard = guard,
                     .begun_at = begun_at,
                     .process_start = request.process_start},
                    state.step);
    outcome = trainer.run(state);
    if (!outcome.outlier) break;
    board.enter("reading weights or a checkpoint");
    begun_at = outcome.last_checkpoint;
    roll_back(start, begun_at, *outcome.outlier, guard, state);
  }
  terminal.clear();
  board.enter("ending the run");

  say_outcome(outcome, run, log);
  log.info(cat("  peak memory: ", peak_memory_of_ranks(session, mesh.device())));
  session.barrier();
  return outcome.stopped_on_request ? ExitCode::stopped : ExitCode::done;
}

bool is_agreed_stop(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  return own != nullptr && own->code() == ExitCode::stopped && own->agreed();
}

/// Says on the board why the run fails, while its machine still stands: taking it down may wait for
/// a rank that will not come. Throws what to tell instead where memory has run out.
void tell_failure(const std::exception& error, const ResolvedConfig& resolved,
                  const Machine& machine, ProgressBoard& board) {
  const auto* own = dynamic_cast<const Error*>(&error);
  if (machine.mesh && resolved.device == comm::DeviceType::cuda && is_out_of_memory(error)) {
    ConfigError told =
        out_of_memory_error(error, resolved, doing(board.read()), machine.mesh->device());
    if (own != nullptr && own->agreed()) told.set_agreed();
    board.fail(told.code(), told.what());
    throw told;
  }
  board.fail(own != nullptr ? own->code() : ExitCode::internal,
             own != nullptr ? error.what() : cat("internal error: ", error.what()));
}

/// log.txt gets what ends the run as well: the console of a batch job may be gone, and `watch` and
/// `report` read there how a run has ended. What all ranks say alike is said once.
void leave_in_log(const std::exception& error, const fs::path& file, int rank) {
  const auto* own = dynamic_cast<const Error*>(&error);
  const bool agreed = own != nullptr && own->agreed();
  if (agreed && rank != 0) return;
  const std::string what = own != nullptr ? error.what() : cat("internal error: ", error.what());
  try {
    Logger({.rank = 0, .console = false, .file = file.string()})
        .error(agreed ? what : cat("[rank ", rank, "] ", what));
  } catch (const std::exception&) {
    // The error itself goes its way, whether it can be written here or not.
  }
}

/// What was asked for, understood; the same on every rank.
struct Request {
  ResolvedConfig resolved;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::vector<std::string> notes;  // on the model's config.json
};

Request read_request(comm::MpiSession& session, const RunRequest& request) {
  const std::string text = broadcast_config_text(session, request.config_path);
  Request read;
  config::Parsed parsed;
  comm::agree(
      session,
      [&] {
        parsed = config::parse_run_config(text, request.config_path, request.overrides);
        check_model_directory(parsed);
        read.tokenizer = tokenizer::make_tokenizer(tokenizer_of(parsed.config));
      },
      OnStop::give_up);
  const int64_t vocab_size = read.tokenizer->vocab_size();
  const inference::DecidedModel decided =
      inference::decide_model(session, parsed.config.model, vocab_size);
  comm::agree(
      session,
      [&] { read.resolved = resolve(parsed, decided.decoder, vocab_size, session.size()); },
      OnStop::give_up);
  read.notes = decided.notes;
  return read;
}

}  // namespace

ExitCode run_training(comm::MpiSession& session, const RunRequest& request) {
  session.board()->enter("reading the run file and the tokenizer");
  Request read = read_request(session, request);
  ResolvedConfig& resolved = read.resolved;
  const std::vector<std::string> hosts =
      agree_on_facts(session, facts_of(request.program, resolved, *read.tokenizer));
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
    for (const std::string& note : read.notes) log->warn(note);
    say_dropout_of(resolved, *log);
  }
  for (const std::string& line : directory.warnings()) log->warn(line);
  request.watchdog.set(watchdog_options(request, resolved, (run_dir / "log.txt").string()));
  log_begin(session, request, *log);
  std::optional<WorkDisplay> display;
  if (session.rank() == 0)
    display.emplace(
        terminal, [&log](const std::string& line) { log->info(line); },
        [&log](const std::string& line) { log->note(line); });
  Machine machine;
  try {
    return train(session, request, resolved, *read.tokenizer, hosts, directory, *log, terminal,
                 machine);
  } catch (const std::exception& error) {
    if (is_agreed_stop(error)) {
      log->info(cat(error.what(), " before the first step, ", session.board()->read().phase,
                    ": there is nothing to save"));
      return ExitCode::stopped;
    }
    try {
      tell_failure(error, resolved, machine, *session.board());
    } catch (const std::exception& told) {
      leave_in_log(told, run_dir / "log.txt", session.rank());
      throw;
    }
    leave_in_log(error, run_dir / "log.txt", session.rank());
    throw;
  }
}

}  // namespace tptrain::train
