// What a CheckpointStore holds. Private to this folder.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/background.h"
#include "base/error.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/manifest.h"
#include "checkpoint/retention.h"
#include "checkpoint/run_directory.h"
#include "checkpoint/save.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

struct CheckpointStore::Impl {
  comm::ControlGroup& group;
  Options options;
  int64_t last_sequence = 0;
  std::string parent_save_id = {};               // of what was loaded or saved last
  std::set<std::string> verified = {};           // path and save id of what these ranks have hashed
  std::set<std::filesystem::path> damaged = {};  // what they found to differ from its manifest
  std::vector<std::string> retention_problems = {};
  SaveAgain again = SaveAgain::at_once;

  // The save that is under way:
  enum class Stage { writing, committing } stage = Stage::writing;
  std::optional<Save> save = {};
  bool run_dir_was_removed = false;
  CheckpointInfo committed = {};                            // rank 0
  std::chrono::steady_clock::time_point committed_at = {};  // other ranks: when they knew of it
  int64_t save_bytes = 0;
  std::optional<BackgroundJob> job = {};  // goes first: it works on the others

  bool first() const { return group.rank() == 0; }

  /// Runs a collective part of the save; where it throws there is no save any longer.
  void or_end_save(const std::function<void()>& part) {
    try {
      part();
    } catch (const Error& e) {
      job.reset();
      if (save) save->discard();
      save.reset();
      // The others have left their collectives too only where all of them hold this error.
      if (e.agreed()) agree_on_failure();
      throw;
    }
  }

  /// Collective. Where one rank has failed, the others need not write to the end.
  void await_shards() {
    comm::agree(group, [&] {
      try {
        job->get();
      } catch (const GivenUp&) {
        // The rank that failed says why.
      }
    });
  }

  /// Rank 0.
  void commit() {
    committed = save->commit();
    committed_at = std::chrono::steady_clock::now();
  }

  std::vector<std::string> remove_old(const CheckpointInfo& newest) {
    return apply_retention({.directory = options.directory,
                            .keep = options.keep,
                            .keep_every = options.keep_every,
                            .keep_best = options.keep_best,
                            .damaged = damaged,
                            .owner = options.owner,
                            .fault_point = options.fault_point},
                           newest);
  }

  /// After the commit. Collective: no rank goes on before rank 0 has removed what is old; a rank
  /// that left would find a busy directory at its next step.
  CheckpointInfo end_save() {
    CheckpointInfo saved = committed;
    const std::string path = group.broadcast(saved.path.string(), 0);
    if (!first()) {
      saved = info_of(save->manifest(), path);
      committed_at = std::chrono::steady_clock::now();
    }
    job.reset();
    save.reset();
    parent_save_id = saved.save_id;
    again = SaveAgain::never;  // what follows is not about this save
    comm::agree(group, [&] {
      if (!run_dir_was_removed) return;
      throw CheckpointError(
          problem(cat("run_dir was removed while this run used it, with its checkpoints, metrics "
                      "and log; the state of step ",
                      saved.state.step, " is saved in a new one"))
              .at(saved.path.string())
              .remedy("Start the same command again: it goes on from this checkpoint."));
    });
    return saved;
  }

  /// Every rank parses the bytes that rank 0 read. Collective; throws Refused on every rank alike.
  Manifest shared_manifest(const std::filesystem::path& path) {
    std::string message;
    if (first()) {
      std::string text;
      const std::string fault = problem_of([&] { text = read_manifest_text(path); });
      message = fault.empty() ? "+" + text : "-" + fault;
    }
    message = group.broadcast(message, 0);
    if (message.front() == '-') throw Refused(message.substr(1));
    Manifest manifest;
    const std::string fault = problem_of([&] { manifest = parse_manifest(message.substr(1)); });
    if (!fault.empty()) throw Refused(fault);
    return manifest;
  }

  /// Contents of a checkpoint, each chunk hashed by one rank, once. Collective; the same answer
  /// everywhere: "" or what is wrong.
  std::string verify_together(const std::filesystem::path& path, const Manifest& manifest) {
    const std::string identity = cat(path.string(), " ", manifest.save_id);
    if (verified.contains(identity)) return {};
    std::string mine;
    const auto check_my_share = [&] {
      const TensorIndex covers_every_tensor(manifest.pieces);
      const std::vector<ShardChunk> share = share_of_chunks(manifest, group.rank(), group.size());
      const Work work("checking " + path.filename().string(), WorkUnit::bytes,
                      bytes_of(manifest, share));
      check_chunks(path, manifest, share);
    };
    comm::agree(
        group, [&] { mine = problem_of(check_my_share); }, OnStop::give_up);
    for (const std::string& fault : group.all_gather(mine)) {
      if (fault.empty()) continue;
      damaged.insert(path);
      return fault;
    }
    verified.insert(identity);
    return {};
  }

  /// The whole judgement of one directory. Collective; throws Refused on every rank alike.
  Manifest judge(const std::filesystem::path& path) {
    Manifest manifest = shared_manifest(path);
    const std::string fault = verify_together(path, manifest);
    if (!fault.empty()) throw Refused(fault);
    return manifest;
  }

  /// The same for a directory that was asked for by name. Throws CheckpointError.
  Manifest require_valid(const std::filesystem::path& path) {
    try {
      return judge(path);
    } catch (const Refused& e) {
      CheckpointError error(
          problem(plain_message(e))
              .at(path.string())
              .must("be one whole checkpoint, such as run_dir/checkpoints/step-00000100")
              .remedy("`tptrain verify` says which checkpoints of a run are whole."));
      error.set_agreed();
      throw error;
    }
  }

  /// After a failed save that every rank knows of: what rank 0 found out about it, on all of them.
  /// Throws where the reason is that run_dir is another run's. Collective.
  void agree_on_failure() {
    std::string lost = first() ? lost_run_dir() : "";
    if (!lost.empty()) again = SaveAgain::never;
    again = static_cast<SaveAgain>(group.max(first() ? static_cast<int64_t>(again) : 0));
    lost = group.broadcast(lost, 0);
    if (lost.empty()) return;
    Error error(ExitCode::checkpoint, lost);
    error.set_agreed();
    throw error;
  }

  /// What to say of it, or "".
  std::string lost_run_dir() const {
    if (options.owner == nullptr) return {};
    try {
      if (options.owner->look().hold != RunOwner::Look::Hold::lost) return {};
    } catch (const Error&) {
      return {};  // nobody knows: the save's own error is the one to tell
    }
    try {
      options.owner->require();
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  }

  /// What rank 0 sees under the directory by manifest alone, newest first, on every rank.
  std::vector<Verdict> shared_listing(const Select& select) {
    std::vector<Verdict> listing;
    comm::agree(group, [&] {
      if (!first()) return;
      listing = list_checkpoints(options.directory, Depth::manifest);
      if (select) listing = select(listing);
    });
    const int64_t count = group.max(static_cast<int64_t>(listing.size()));
    listing.resize(static_cast<size_t>(count));
    for (Verdict& verdict : listing) {
      verdict.path = group.broadcast(verdict.path.string(), 0);
      verdict.problem = group.broadcast(verdict.problem, 0);
    }
    return listing;
  }
};

}  // namespace tptrain::checkpoint
