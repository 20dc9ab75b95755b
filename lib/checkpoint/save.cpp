#include "checkpoint/save.h"

#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/run_directory.h"
#include "checkpoint/shard_plan.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
namespace {

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

// Whether this run may write here at all, on rank 0. That the token cannot be read says nothing of
// whose run_dir is: it is a fault of the disk, and the save may be tried again.
void check_owner(const SaveOrder& order) {
  using Hold = RunOwner::Look::Hold;
  if (order.owner == nullptr) return;
  const Hold hold = order.owner->look().hold;
  if (hold == Hold::gone) {
    // What is in memory is all that is left of the run: it is saved first, and told after.
    order.owner->write();
    order.run_dir_was_removed = true;
  } else if (hold == Hold::lost) {
    order.again = SaveAgain::never;
    order.owner->require();
  }
}

// "<size> <root of the hashes> <hash of each chunk> ...": what every rank tells of its shard.
std::string record_text(const DurableFile::Written& written) {
  std::string text = cat(written.size_bytes, " ", written.sha256);
  for (const std::string& chunk : written.chunks) text += " " + chunk;
  return text;
}

ManifestFile parse_record(const std::string& text) {
  std::istringstream words(text);
  ManifestFile file;
  words >> file.size_bytes >> file.hash;
  for (std::string chunk; words >> chunk;) file.chunks.push_back(chunk);
  return file;
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

Save::Save(comm::ControlGroup& group, SaveOrder order, const sharding::StateDict& state,
           const TrainState& train_state)
    : group_(group),
      order_(std::move(order)),
      temporary_(order_.directory / temporary_directory_name(train_state.step, order_.save_id)),
      manifest_{.save_id = order_.save_id,
                .parent_save_id = order_.parent_save_id,
                .save_sequence = order_.save_sequence,
                .state = train_state,
                .files = {},
                .pieces = {}} {
  std::string plan_text;
  comm::agree(group_, [&] {
    plan_ = plan_shard(state, group_.rank());
    plan_text = pieces_text(plan_.pieces);
    manifest_text(
        manifest_);  // its texts must be fit for JSON: better found before gigabytes are written
  });
  const std::vector<std::string> plans = group_.all_gather(plan_text);
  shard_bytes_ = group_.sum(formats::SafetensorsWriter::file_bytes(plan_.entries));
  comm::agree(group_, [&] {
    if (group_.rank() != 0) return;
    manifest_.pieces = merge_pieces(plans);
    order_.again = SaveAgain::never;  // what the next line finds is no fault of the moment
    check_coverage(manifest_.pieces);
    order_.again = SaveAgain::at_once;
    check_owner(order_);
    create_directories_durably(order_.directory);
    check_space(order_, {.shards = shard_bytes_,
                         .manifest = static_cast<int64_t>(pieces_text(manifest_.pieces).size())});
    try {
      create_directories_durably(temporary_);
      order_.fault_point("temporary directory made");
    } catch (const Error&) {
      discard();
      throw;
    }
  });
}

void Save::write_shard() {
  written_ = checkpoint::write_shard(temporary_ / shard_name(group_.rank(), group_.size()), plan_,
                                     order_.fault_point, given_up_, values_written_);
}

int64_t Save::bytes_of_shard() const {
  return formats::SafetensorsWriter::file_bytes(plan_.entries);
}

int64_t Save::bytes_to_write() const {
  int64_t values = 0;
  for (const formats::SafetensorsEntry& entry : plan_.entries)
    values += entry.shape[0] * static_cast<int64_t>(sizeof(float));
  return values - values_written_;
}

void Save::gather_records() {
  const std::vector<std::string> records = group_.all_gather(record_text(written_));
  comm::agree(group_, [&] {
    for (const std::string& record : records) manifest_.files.push_back(parse_record(record));
  });
}

CheckpointInfo Save::commit() {
  return info_of(manifest_, checkpoint::commit(temporary_, order_, manifest_));
}

void Save::discard() {
  if (group_.rank() == 0) discard_uncommitted(temporary_);
}

}  // namespace tptrain::checkpoint
