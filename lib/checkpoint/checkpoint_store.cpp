// CheckpointStore: recovery at start, choice of the checkpoint to resume, loading from any layout.
// Saving is in save.cpp, removal in retention.cpp.
#include "checkpoint/checkpoint_store.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/random_id.h"
#include "checkpoint/retention.h"
#include "checkpoint/save.h"
#include "checkpoint/shard_set.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using sharding::StatePiece;

namespace {

constexpr size_t kMaxNamed = 5;  // tensors an error names one by one

// A `.tmp-*` with a manifest is committed (the manifest comes last, whole and at once): it gets its
// name, and newest() judges its contents like any other's. Without one it is the rest of a save
// that never was.
void recover(const fs::path& directory) {
  for (const fs::path& temporary : temporary_directories(directory)) {
    if (has_manifest(temporary)) {
      const int64_t step = step_of_temporary_directory(temporary.filename().string());
      rename_durably(temporary, free_step_directory(directory, step));
      continue;
    }
    std::error_code error;
    fs::remove_all(temporary, error);
    if (error) {
      throw CheckpointError(
          problem(cat("the rest of an unfinished save cannot be removed: ", error.message()))
              .at(temporary.string())
              .remedy("Remove the directory by hand; it holds no checkpoint."));
    }
    fsync_directory(directory);
  }
}

int64_t highest_sequence(const fs::path& directory) {
  int64_t highest = 0;
  for (const Verdict& verdict : list_checkpoints(directory, Depth::manifest)) {
    if (verdict.info) highest = std::max(highest, verdict.info->save_sequence);
  }
  return highest;
}

// What a rank's state wants and the checkpoint cannot give, and what it holds that no rank wants.
std::vector<std::string> differences(const ShardSet& shards, const sharding::StateDict& state,
                                     const std::set<std::string>& wanted_by_any) {
  std::set<std::string> found;
  for (const StatePiece& piece : state.pieces) {
    if (piece.begin == piece.end) continue;
    if (std::string difference = problem_of([&] { shards.require(piece.kind, piece.spec); });
        !difference.empty())
      found.insert(std::move(difference));
  }
  for (const sharding::TensorInfo& tensor : shards.index().tensors()) {
    if (!wanted_by_any.contains(tensor.name))
      found.insert(cat("the model has no tensor ", one_line(tensor.name)));
  }
  return {found.begin(), found.end()};
}

std::set<std::string> names_wanted_by_any_rank(comm::ControlGroup& group,
                                               const sharding::StateDict& state) {
  std::set<std::string> mine;
  for (const StatePiece& piece : state.pieces) mine.insert(piece.spec.name);
  std::set<std::string> all;
  for (const std::string& text : group.all_gather(join(mine, std::string_view("\0", 1)))) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\0', begin), text.size());
      all.insert(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return all;
}

void load_piece(const ShardSet& shards, StatePiece& piece) {
  if (!piece.data.defined() || piece.data.dim() != 1 ||
      (piece.data.scalar_type() != at::kFloat && piece.data.scalar_type() != at::kBFloat16) ||
      piece.data.numel() != piece.end - piece.begin) {
    throw InternalError(
        problem(cat("the piece [", piece.begin, ", ", piece.end, ") of ", piece.spec.name,
                    " is no 1-D fp32 or bf16 tensor of that many elements")));
  }
  if (piece.begin == piece.end) return;
  const at::ScalarType dtype = piece.data.scalar_type();
  if (piece.data.is_cpu() && piece.data.is_contiguous() && dtype == at::kFloat) {
    shards.read(piece.kind, piece.spec, piece.begin, piece.end, piece.data.data_ptr<float>());
    return;
  }
  for (int64_t begin = piece.begin; begin < piece.end; begin += sharding::kStateChunkElements) {
    const int64_t count = std::min(sharding::kStateChunkElements, piece.end - begin);
    at::Tensor host = at::empty({count}, at::TensorOptions().dtype(at::kFloat).device(at::kCPU));
    shards.read(piece.kind, piece.spec, begin, begin + count, host.data_ptr<float>());
    piece.data.narrow(0, begin - piece.begin, count).copy_(host.to(dtype));
  }
}

}  // namespace

struct CheckpointStore::Impl {
  comm::ControlGroup& group;
  Options options;
  int64_t last_sequence = 0;
  std::string parent_save_id = {};      // of what was loaded or saved last
  std::set<std::string> verified = {};  // path and save id of what these ranks have hashed
  std::set<fs::path> damaged = {};      // what they found to differ from its manifest
  std::vector<std::string> retention_problems = {};

  bool first() const { return group.rank() == 0; }

  /// Every rank parses the bytes that rank 0 read. Collective; throws Refused on every rank alike.
  Manifest shared_manifest(const fs::path& path) {
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

  /// Contents of a checkpoint, each shard hashed by one rank, once. Collective; the same answer
  /// everywhere: "" or what is wrong.
  std::string verify_together(const fs::path& path, const Manifest& manifest) {
    const std::string identity = cat(path.string(), " ", manifest.save_id);
    if (verified.contains(identity)) return {};
    const std::string mine = problem_of([&] {
      const TensorIndex covers_every_tensor(manifest.pieces);
      const auto count = static_cast<int64_t>(manifest.files.size());
      for (int64_t file = group.rank(); file < count; file += group.size()) {
        check_shard(path, manifest, file);
      }
    });
    for (const std::string& fault : group.all_gather(mine)) {
      if (fault.empty()) continue;
      damaged.insert(path);
      return fault;
    }
    verified.insert(identity);
    return {};
  }

  /// The whole judgement of one directory. Collective; throws Refused on every rank alike.
  Manifest judge(const fs::path& path) {
    Manifest manifest = shared_manifest(path);
    const std::string fault = verify_together(path, manifest);
    if (!fault.empty()) throw Refused(fault);
    return manifest;
  }

  /// The same for a directory that was asked for by name. Throws CheckpointError.
  Manifest require_valid(const fs::path& path) {
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

  /// What rank 0 sees under the directory by manifest alone, newest first, on every rank.
  std::vector<Verdict> shared_listing() {
    std::vector<Verdict> listing;
    comm::agree(group, [&] {
      if (first()) listing = list_checkpoints(options.directory, Depth::manifest);
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

CheckpointStore::CheckpointStore(comm::ControlGroup& group, const Options& options)
    : impl_(std::make_unique<Impl>(Impl{.group = group, .options = options})) {
  if (!impl_->options.fault_point) impl_->options.fault_point = [](std::string_view) {};
  comm::agree(group, [&] {
    if (options.keep < 0)
      throw InternalError(
          problem(cat("checkpoint keep is ", options.keep)).must("be 0 (all) or more"));
    if (group.rank() != 0) return;
    create_directories_durably(options.directory);
    recover(options.directory);
    impl_->last_sequence = highest_sequence(options.directory);
  });
  impl_->last_sequence = group.max(impl_->last_sequence);
}

CheckpointStore::~CheckpointStore() = default;

const std::vector<std::string>& CheckpointStore::retention_problems() const {
  return impl_->retention_problems;
}

CheckpointStore::Found CheckpointStore::newest() {
  Found found;
  const std::vector<Verdict> listing = impl_->shared_listing();
  std::vector<std::pair<std::string, std::string>> refused;  // name and reason
  for (const Verdict& verdict : listing) {
    const std::string name = verdict.path.filename().string();
    if (!verdict.problem.empty()) {
      refused.emplace_back(name, verdict.problem);
      continue;
    }
    if (found.info) continue;  // older than the one found
    try {
      found.info = info_of(impl_->judge(verdict.path), verdict.path);
    } catch (const Refused& e) {
      refused.emplace_back(name, plain_message(e));
    }
  }
  if (listing.empty()) return found;
  if (!found.info) {
    std::string reasons;
    for (const auto& [name, reason] : refused) reasons += cat("\n    ", name, ": ", reason);
    CheckpointError error(
        problem(cat("of ", listing.size(), " checkpoints none is valid:", reasons))
            .at(impl_->options.directory.string())
            .remedy("Restore one of them, set checkpoint.resume to the path of another checkpoint, "
                    "or start anew with another run_dir or checkpoint.resume: never."));
    error.set_agreed();
    throw error;
  }
  for (const auto& [name, reason] : refused) {
    found.refused.push_back(cat((impl_->options.directory / name).string(), ": ", reason,
                                ". Resuming from ", found.info->path.filename().string(),
                                ", the newest valid one; remove ", name, " to silence this."));
  }
  return found;
}

CheckpointInfo CheckpointStore::open(const fs::path& path) {
  return info_of(impl_->require_valid(path), path);
}

void CheckpointStore::load_into(sharding::StateDict& state, const CheckpointInfo& from) {
  const Manifest manifest = impl_->require_valid(from.path);
  if (manifest.save_id != from.save_id) {
    CheckpointError error(problem(cat("the directory holds save ", manifest.save_id, ", not ",
                                      from.save_id, " that was found there before"))
                              .at(from.path.string())
                              .remedy("Something else writes into this directory: end it."));
    error.set_agreed();
    throw error;
  }
  const std::set<std::string> wanted = names_wanted_by_any_rank(impl_->group, state);
  comm::agree(impl_->group, [&] {
    const ShardSet shards(from.path, manifest);
    const std::vector<std::string> differing = differences(shards, state, wanted);
    if (!differing.empty()) {
      const std::vector<std::string> named(
          differing.begin(),
          differing.begin() + static_cast<std::ptrdiff_t>(std::min(kMaxNamed, differing.size())));
      throw CheckpointError(
          problem(cat("the checkpoint is of another model:\n    ", join(named, "\n    "),
                      differing.size() > kMaxNamed
                          ? cat("\n    and ", differing.size() - kMaxNamed, " more")
                          : ""))
              .at(from.path.string())
              .remedy(
                  "Use the model section the checkpoint was trained with, or another run_dir."));
    }
    const at::NoGradGuard no_grad;
    for (StatePiece& piece : state.pieces) load_piece(shards, piece);
  });
  impl_->parent_save_id = manifest.save_id;
}

CheckpointInfo CheckpointStore::save(const sharding::StateDict& state,
                                     const TrainState& train_state) {
  Impl& self = *impl_;
  self.retention_problems.clear();
  // Counted before the attempt: a save that fails after its commit must not share its number with
  // the next.
  const SaveOrder order{.directory = self.options.directory,
                        .save_id = self.group.broadcast(self.first() ? random_id() : "", 0),
                        .parent_save_id = self.parent_save_id,
                        .save_sequence = ++self.last_sequence,
                        .fault_point = self.options.fault_point};
  const CheckpointInfo saved = save_checkpoint(self.group, order, state, train_state);
  self.parent_save_id = saved.save_id;
  if (self.first()) {
    self.retention_problems = apply_retention({.directory = order.directory,
                                               .keep = self.options.keep,
                                               .damaged = self.damaged,
                                               .fault_point = order.fault_point},
                                              saved);
  }
  self.group.barrier();  // no rank goes on while rank 0 still removes: a rank that left would find
                         // a busy directory at its next step
  return saved;
}

}  // namespace tptrain::checkpoint
