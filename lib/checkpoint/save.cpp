#include "checkpoint/save.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/run_directory.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using sharding::StatePiece;

namespace {

// What this rank writes: `pieces` and `sources` run in parallel, in the order in which they lie in
// the shard.
struct ShardPlan {
  std::vector<ManifestPiece> pieces;
  std::vector<const StatePiece*> sources;
  std::vector<formats::SafetensorsEntry> entries;
};

void check_piece(const StatePiece& piece) {
  const bool fits =
      piece.data.defined() && piece.data.dim() == 1 &&
      (piece.data.scalar_type() == at::kFloat || piece.data.scalar_type() == at::kBFloat16) &&
      piece.data.numel() == piece.end - piece.begin && piece.begin >= 0 &&
      piece.end <= piece.spec.local_numel() && sharding::is_state_kind(piece.kind);
  if (fits) return;
  throw InternalError(problem(
      cat("the piece [", piece.begin, ", ", piece.end, ") of ", piece.spec.name,
          " is no 1-D fp32 or bf16 tensor of that many elements of its slice, of the kind '",
          piece.kind, "'")));
}

// Sorted by what the pieces are, so that the bytes of a shard do not depend on the order of the
// caller's list.
ShardPlan plan_shard(const sharding::StateDict& state, int64_t file) {
  ShardPlan plan;
  for (const StatePiece& piece : state.pieces) {
    check_piece(piece);
    if (piece.save && piece.begin < piece.end) plan.sources.push_back(&piece);
  }
  const auto rank = [](const StatePiece* p) {
    return std::tie(p->spec.name, p->spec.begin, p->begin);
  };
  std::stable_sort(plan.sources.begin(), plan.sources.end(),
                   [&](const StatePiece* a, const StatePiece* b) {
                     if (a->kind != b->kind) return sharding::kind_before(a->kind, b->kind);
                     return rank(a) < rank(b);
                   });
  int64_t number = 0;
  for (const StatePiece* piece : plan.sources) {
    const bool same_tensor = !plan.pieces.empty() && plan.pieces.back().kind == piece->kind &&
                             plan.pieces.back().spec.name == piece->spec.name;
    number = same_tensor ? number + 1 : 0;
    const std::string key = cat(piece->kind, "/", piece->spec.name, "#", number);
    plan.pieces.push_back({.kind = piece->kind,
                           .spec = piece->spec,
                           .begin = piece->begin,
                           .end = piece->end,
                           .file = file,
                           .key = key});
    // A whole tensor has one spelling in the file, whatever the caller left in begin and end.
    if (piece->spec.whole()) plan.pieces.back().spec.begin = plan.pieces.back().spec.end = 0;
    plan.entries.push_back(
        {.name = key, .dtype = formats::Dtype::f32, .shape = {piece->end - piece->begin}});
  }
  return plan;
}

std::vector<ManifestPiece> merge_pieces(const std::vector<std::string>& of_rank) {
  std::vector<ManifestPiece> all;
  for (const std::string& text : of_rank) {
    std::vector<ManifestPiece> pieces = parse_pieces(text, static_cast<int64_t>(of_rank.size()));
    all.insert(all.end(), std::make_move_iterator(pieces.begin()),
               std::make_move_iterator(pieces.end()));
  }
  return all;
}

// Better refused now than found when it is needed: a gap here is a fault of the program, not of the
// disk.
void check_coverage(const std::vector<ManifestPiece>& pieces) {
  try {
    const TensorIndex covers_every_tensor(pieces);
  } catch (const Refused& e) {
    throw CheckpointError(problem(cat("the ranks' pieces do not make up the model: ", e.what()))
                              .must("cover each element exactly once")
                              .remedy("Nothing was written. This is a fault in tptrain: please "
                                      "report it with the config."));
  }
}

// What file systems add (blocks, journals, directories), and the log lines of the run beside it.
int64_t slack_of(const SaveBytes& bytes) { return (int64_t{1} << 20) + bytes.shards / 100; }

// "2.00 GiB (1.97 GiB of shards, 3.10 MiB of manifest, 27.00 MiB of slack for the file system)"
std::string told(const SaveBytes& bytes, int64_t count) {
  return cat(human_bytes(count * (bytes.shards + bytes.manifest) + slack_of(bytes)), " (",
             count > 1 ? cat(count, " x ") : "", human_bytes(bytes.shards), " of shards and ",
             human_bytes(bytes.manifest), " of manifest, and ", human_bytes(slack_of(bytes)),
             " of slack for the file system and the log)");
}

bool fits(const SaveBytes& bytes, int64_t count, int64_t free) {
  int64_t needed = 0;
  return !__builtin_mul_overflow(count, bytes.shards + bytes.manifest, &needed) &&
         !__builtin_add_overflow(needed, slack_of(bytes), &needed) && needed <= free;
}

void check_space(const SaveOrder& order, const SaveBytes& bytes) {
  const int64_t free = free_space_bytes(order.directory);
  if (fits(bytes, 1, free)) return;
  order.again = SaveAgain::later;
  throw CheckpointError(
      problem(cat("a checkpoint needs ", told(bytes, 1), ", ", human_bytes(free), " are free"))
          .at(order.directory.string())
          .must("fit beside those kept, which are removed only after the new one is committed")
          .remedy("Nothing was written. Free space, lower checkpoint.keep, or move run_dir to a "
                  "larger file system."));
}

// Whether this run may write here at all, on rank 0.
void check_owner(const SaveOrder& order) {
  if (order.owner == nullptr) return;
  if (order.owner->look().hold == RunOwner::Look::Hold::gone) {
    // What is in memory is all that is left of the run: it is saved first, and told after.
    order.owner->write();
    order.run_dir_was_removed = true;
  }
  try {
    order.owner->require();
  } catch (const Error&) {
    order.again = SaveAgain::never;
    throw;
  }
}

DurableFile::Written write_shard(const fs::path& path, const ShardPlan& plan,
                                 const FaultPoint& fault_point) {
  const at::NoGradGuard no_grad;
  const Work work("saving the checkpoint", WorkUnit::bytes,
                  formats::SafetensorsWriter::file_bytes(plan.entries));
  formats::SafetensorsWriter writer(path, plan.entries, {}, FileHash::chunks);
  for (size_t i = 0; i < plan.sources.size(); ++i) {
    const at::Tensor& data = plan.sources[i]->data;
    for (int64_t begin = 0; begin < data.numel(); begin += sharding::kStateChunkElements) {
      const int64_t count = std::min(sharding::kStateChunkElements, data.numel() - begin);
      // Converted on the host: a GPU that is full of state has no room for more.
      const at::Tensor chunk =
          data.narrow(0, begin, count).to(at::kCPU).to(at::kFloat).contiguous();
      writer.write(chunk.data_ptr(), chunk.nbytes());
    }
    if (i == plan.sources.size() / 2) fault_point("shard half written");
  }
  const DurableFile::Written written = writer.commit();
  fault_point("shard written");
  return written;
}

// "<size> <root of the hashes>", what every rank tells of its shard.
std::string record_text(const DurableFile::Written& written) {
  return cat(written.size_bytes, " ", written.sha256);
}

ManifestFile parse_record(const std::string& text) {
  const size_t space = text.find(' ');
  return {.size_bytes = std::stoll(text.substr(0, space)), .hash = text.substr(space + 1)};
}

// Each rank has fsynced its shard; rank 0 must see them all before it says so in a manifest.
void check_shards_arrived(const fs::path& directory, const Manifest& manifest) {
  const auto count = static_cast<int64_t>(manifest.files.size());
  for (int64_t file = 0; file < count; ++file) {
    const std::string fault = problem_of([&] { check_shard_size(directory, manifest, file); });
    if (fault.empty()) continue;
    throw CheckpointError(
        problem(cat("rank ", file, " wrote its shard, but rank 0 does not see it so: ", fault))
            .at(directory.string())
            .remedy(
                "Nothing was committed. run_dir must be on one file system shared by all hosts."));
  }
}

fs::path acknowledge(const fs::path& temporary, const SaveOrder& order, int64_t step) {
  const fs::path name = free_step_directory(order.directory, step);
  try {
    rename_durably(temporary, name);
  } catch (const Error& e) {
    throw CheckpointError(
        problem(cat("the checkpoint is committed, but its directory could not be renamed: ",
                    plain_message(e)))
            .at(temporary.string())
            .remedy("It is not lost: the next start finishes the rename."));
  }
  order.fault_point("acknowledged");
  return name;
}

fs::path commit(const fs::path& temporary, const SaveOrder& order, const Manifest& manifest) {
  check_shards_arrived(temporary, manifest);
  order.fault_point("records gathered");
  fsync_directory(temporary);
  order.fault_point("directory synced");
  if (order.owner != nullptr) order.owner->require();
  write_file_atomically(temporary / kManifestName, manifest_text(manifest));
  order.fault_point("committed");
  return acknowledge(temporary, order, manifest.state.step);
}

// Of a save that failed. With a manifest in place it may be committed, and what is committed is
// never cleaned away: the next start looks at it.
void discard_uncommitted(const fs::path& temporary) {
  if (has_manifest(temporary)) return;
  std::error_code error;
  // Where this fails too the first error is the one to report; the next start removes the remains.
  fs::remove_all(temporary, error);
}

}  // namespace

SaveBytes bytes_of_save(comm::ControlGroup& group, const sharding::StateDict& state) {
  ShardPlan plan;
  comm::agree(group, [&] { plan = plan_shard(state, group.rank()); });
  return {.shards = group.sum(formats::SafetensorsWriter::file_bytes(plan.entries)),
          .manifest = group.sum(static_cast<int64_t>(pieces_text(plan.pieces).size()))};
}

std::string check_space_for_run(const fs::path& directory, const SaveBytes& bytes, int64_t count,
                                bool must_fit) {
  const int64_t free = free_space_bytes(directory);
  if (fits(bytes, count, free)) return {};
  const bool none = !fits(bytes, 1, free);
  const Problem what =
      problem(cat("the checkpoints that this run will hold at once need ", told(bytes, count),
                  " beside what lies there, ", human_bytes(free), " are free"))
          .at(directory.string())
          .must("fit, checkpoint.keep of them and one")
          .remedy("Free space, lower checkpoint.keep, or move run_dir to a larger file system.");
  if (must_fit || none) throw CheckpointError(what);
  return cat(what.received, " in ", directory.string(),
             ": checkpoint.keep is 0, so none of them is removed");
}

CheckpointInfo save_checkpoint(comm::ControlGroup& group, const SaveOrder& order,
                               const sharding::StateDict& state, const TrainState& train_state) {
  const bool first = group.rank() == 0;
  const fs::path temporary =
      order.directory / temporary_directory_name(train_state.step, order.save_id);
  Manifest manifest{.save_id = order.save_id,
                    .parent_save_id = order.parent_save_id,
                    .save_sequence = order.save_sequence,
                    .state = train_state,
                    .files = {},
                    .pieces = {}};

  ShardPlan plan;
  std::string plan_text;
  comm::agree(group, [&] {
    plan = plan_shard(state, group.rank());
    plan_text = pieces_text(plan.pieces);
    manifest_text(
        manifest);  // its texts must be fit for JSON: better found before gigabytes are written
  });
  const std::vector<std::string> plans = group.all_gather(plan_text);
  const int64_t shard_bytes = group.sum(formats::SafetensorsWriter::file_bytes(plan.entries));
  comm::agree(group, [&] {
    if (!first) return;
    manifest.pieces = merge_pieces(plans);
    order.again = SaveAgain::never;  // what the next line finds is no fault of the moment
    check_coverage(manifest.pieces);
    order.again = SaveAgain::at_once;
    check_owner(order);
    create_directories_durably(order.directory);
    check_space(order, {.shards = shard_bytes,
                        .manifest = static_cast<int64_t>(pieces_text(manifest.pieces).size())});
    create_directories_durably(temporary);
    order.fault_point("temporary directory made");
  });

  fs::path path;
  try {
    DurableFile::Written written;
    comm::agree(group, [&] {
      written =
          write_shard(temporary / shard_name(group.rank(), group.size()), plan, order.fault_point);
    });
    const std::vector<std::string> records = group.all_gather(record_text(written));
    comm::agree(group, [&] {
      if (!first) return;
      for (const std::string& record : records) manifest.files.push_back(parse_record(record));
      path = commit(temporary, order, manifest);
    });
  } catch (const Error&) {
    if (first) discard_uncommitted(temporary);
    throw;
  }
  path = group.broadcast(path.string(), 0);
  return info_of(manifest, path);
}

}  // namespace tptrain::checkpoint
