#include "checkpoint/run_directory.h"

#include <system_error>
#include <utility>

#include "base/directory.h"
#include "base/error.h"
#include "base/hex.h"
#include "base/random_id.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "checkpoint/model_files.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOwnerName = ".owner";
constexpr int64_t kMaxOwnerBytes = 4096;

// ".resolved_config.yaml.tmp-0123456789abcdef", as write_file_atomically calls its temporaries; and
// ".shared-<32 digits>".
bool is_leftover(const std::string& name) {
  constexpr std::string_view kShared = ".shared-", kTemporary = ".tmp-";
  if (name.starts_with(kShared)) return is_hex(std::string_view(name).substr(kShared.size()), 32);
  const size_t mark = name.rfind(kTemporary);
  return name.starts_with('.') && mark != name.npos && mark > 0 &&
         is_hex(std::string_view(name).substr(mark + kTemporary.size()), 16);
}

// Under the lock, and before this start makes any of its own.
void remove_leftovers(const fs::path& directory) {
  for (const fs::path& path : entries_if_readable(directory)) {
    std::error_code ignored;  // what cannot be removed is in nobody's way
    if (is_leftover(path.filename().string())) fs::remove(path, ignored);
  }
}

void create(const fs::path& run_dir) {
  try {
    create_directories_durably(run_dir, FailAs::run_dir_error);
  } catch (const ConfigError& e) {
    throw unwritable_run_dir(run_dir, e);
  }
}

}  // namespace

RunOwner::RunOwner(fs::path run_dir) : run_dir_(std::move(run_dir)), token_(random_id()) {
  write(FailAs::run_dir_error);
}

void RunOwner::write(FailAs fail_as) const {
  create_directories_durably(run_dir_, fail_as);
  write_file_atomically(run_dir_ / kOwnerName, cat(token_, " ", this_process(), "\n"), fail_as);
}

RunOwner::Look RunOwner::look() const {
  const fs::path path = run_dir_ / kOwnerName;
  if (!is_taken(path)) return {.hold = Look::Hold::gone};
  std::string text = read_file(path, kMaxOwnerBytes, FailAs::checkpoint_error);
  while (text.ends_with('\n')) text.pop_back();
  if (text.starts_with(token_)) return {.hold = Look::Hold::held};
  const size_t space = text.find(' ');
  return {.hold = Look::Hold::lost,
          .by = space == text.npos ? "another run" : one_line(text.substr(space + 1))};
}

void RunOwner::require() const {
  const Look now = look();
  if (now.hold == Look::Hold::held) return;
  if (now.hold == Look::Hold::gone) {
    throw CheckpointError(problem("run_dir was removed or emptied while this run used it")
                              .at(run_dir_.string())
                              .remedy("Keep run_dir while a run is going on."));
  }
  throw CheckpointError(
      problem(cat("run_dir has been taken over by ", now.by,
                  ": this run no longer writes to it or removes anything in it"))
          .at(run_dir_.string())
          .must("be used by one run at a time")
          .remedy("What was committed before is whole. Give each run a run_dir of its own; where "
                  "file locks work on all hosts, a second start is refused at once."));
}

RunDirectory::RunDirectory(comm::ControlGroup& group, const fs::path& run_dir,
                           const SharedDirectoryOptions& options) {
  comm::agree(group, [&] {
    if (group.rank() != 0) return;
    create(run_dir);
    try {
      lock_.emplace(run_dir / ".lock");
      owner_.emplace(run_dir);
    } catch (const ConfigError& e) {
      if (lock_ || !is_taken(run_dir / ".lock")) throw unwritable_run_dir(run_dir, e);
      throw;  // in use: it says by whom
    }
    if (!lock_->not_supported().empty()) {
      warnings_.push_back(
          cat("run_dir ", run_dir.string(), " is on a file system without file locks (",
              lock_->not_supported(),
              "): a second run in it is not refused, but takes it over from this one. Mount it "
              "with locks (Lustre: -o flock) to be safe."));
    }
    remove_leftovers(run_dir);
    remove_leftovers(model_files_of_run(run_dir));
    remove_leftovers(run_dir / "checkpoints");
  });
  check_shared_directory(group, run_dir, options);
}

}  // namespace tptrain::checkpoint
