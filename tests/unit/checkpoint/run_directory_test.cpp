// One run at a time in a run_dir: by the lock where locks work, by the owner's token where they do
// not; and disks that are full or fail. The system calls are this executable's own, so that a file
// system without locks, a failing disk or a small one can be had anywhere.
#include "checkpoint/run_directory.h"

#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace {

int flock_error = 0;      // 0: every lock is granted, as on a file system where it is each host's
int fsync_error = 0;      // 0: as the system does it
int64_t free_bytes = -1;  // -1: likewise

}  // namespace

// NOLINTBEGIN
extern "C" int flock(int, int) noexcept {
  if (flock_error == 0) return 0;
  errno = flock_error;
  return -1;
}

extern "C" int fsync(int descriptor) {
  if (fsync_error == 0) return static_cast<int>(::syscall(SYS_fsync, descriptor));
  errno = fsync_error;
  return -1;
}

extern "C" int statvfs(const char*, struct statvfs* info) noexcept {
  *info = {};
  info->f_frsize = 1;
  info->f_bavail = static_cast<fsblkcnt_t>(free_bytes < 0 ? int64_t{1} << 40 : free_bytes);
  return 0;
}
// NOLINTEND

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;
using checkpoint::RunDirectory;
using checkpoint::SaveAgain;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.insert(entry.path().filename().string());
  return names;
}

checkpoint::TrainState step_of(int64_t step, char run) {
  checkpoint::TrainState state = train_state_of(step);
  state.run = {.id = std::string(32, run), .begun_by = config::Resume::automatic};
  return state;
}

// Errors by number: the text below stands for any of them.
struct Fsync {
  explicit Fsync(int error) { fsync_error = error; }
  ~Fsync() { fsync_error = 0; }
};

TEST_CASE("where locks do not exclude, the second start takes run_dir over and the first is told") {
  const TempDir dir;
  comm::SingleRank group;
  const fs::path checkpoints = dir / "checkpoints";
  const RunDirectory first(group, dir.path());
  CheckpointStore one(group, {.directory = checkpoints, .keep = 1, .owner = first.owner()});
  one.save(state_of({}, 0, 1), step_of(1, 'a'));

  const RunDirectory second(group, dir.path());
  CheckpointStore two(group, {.directory = checkpoints, .keep = 1, .owner = second.owner()});
  const std::set<std::string> before = names_in(checkpoints);

  const std::string message =
      message_of<Error>([&] { one.save(state_of({}, 0, 2), step_of(2, 'a')); });
  CHECK(has(message, "checkpoint error: "));
  CHECK(has(message, "run_dir has been taken over by process"));
  CHECK(one.save_again() == SaveAgain::never);
  CHECK(names_in(checkpoints) == before);  // nothing committed, nothing removed, nothing left

  two.save(state_of({}, 0, 2), step_of(2, 'a'));
  CHECK(names_in(checkpoints) == std::set<std::string>{"step-00000002"});
}

TEST_CASE("every rank knows that run_dir is lost, so that none tries again alone") {
  const TempDir dir;
  std::vector<SaveAgain> again(2, SaveAgain::at_once);
  const auto thrown = ThreadGroup(2).run([&](comm::ControlGroup& group) {
    const RunDirectory first(group, dir.path());
    CheckpointStore store(group, {.directory = dir / "checkpoints", .owner = first.owner()});
    const RunDirectory second(group, dir.path());
    try {
      const GridShape grid{.tp = 2, .dp = 1};
      store.save(state_of(grid, group.rank(), 1), train_state_of(1, grid));
    } catch (const Error&) {
      again[static_cast<size_t>(group.rank())] = store.save_again();
      throw;
    }
  });
  for (const std::exception_ptr& exception : thrown) {
    REQUIRE(exception);
    CHECK(has(message_of<Error>([&] { std::rethrow_exception(exception); }), "taken over by"));
  }
  for (const SaveAgain of_rank : again) CHECK(of_rank == SaveAgain::never);
}

TEST_CASE("a save that was under way when run_dir was taken is not committed") {
  const TempDir dir;
  comm::SingleRank group;
  const fs::path checkpoints = dir / "checkpoints";
  const RunDirectory first(group, dir.path());
  std::optional<RunDirectory> second;
  CheckpointStore one(group, {.directory = checkpoints,
                              .keep = 1,
                              .owner = first.owner(),
                              .fault_point = [&](std::string_view point) {
                                if (point == "records gathered") second.emplace(group, dir.path());
                              }});
  CHECK(has(message_of<Error>([&] { one.save(state_of({}, 0, 1), step_of(1, 'a')); }),
            "taken over by process"));
  CHECK(one.save_again() == SaveAgain::never);
  CHECK(fs::is_empty(checkpoints));
}

TEST_CASE("without locks a run starts, with a warning that names the way out") {
  const TempDir dir;
  comm::SingleRank group;
  for (const int error : {ENOLCK, ENOSYS, EOPNOTSUPP}) {
    flock_error = error;
    const RunDirectory directory(group, dir.path());
    flock_error = 0;
    REQUIRE(directory.warnings().size() == 1);
    CHECK(has(directory.warnings()[0], "without file locks"));
    CHECK(has(directory.warnings()[0], "-o flock"));
  }
  CHECK(RunDirectory(group, dir.path()).warnings().empty());
  flock_error = EWOULDBLOCK;
  CHECK(has(message_of<Error>([&] { RunDirectory(group, dir.path()); }), "is in use by process"));
  flock_error = 0;
}

TEST_CASE("what killed starts left is removed, and nothing else") {
  const TempDir dir;
  comm::SingleRank group;
  const std::string id(32, 'a');
  const std::string suffix(16, '0');
  for (const std::string& name :
       {".shared-" + id, "..shared-" + id + ".tmp-" + suffix, ".resolved_config.yaml.tmp-" + suffix,
        "model_files/.config.json.tmp-" + suffix})
    dir.put(name, "x");
  for (const std::string& name : {std::string(".shared-mine"), "a.tmp-" + suffix,
                                  std::string(".a.tmp-x"), std::string("notes")})
    dir.put(name, "x");
  const RunDirectory directory(group, dir.path());
  CHECK(names_in(dir.path()) == std::set<std::string>{".lock", ".owner", ".shared-mine",
                                                      "a.tmp-" + suffix, ".a.tmp-x", "notes",
                                                      "model_files"});
  CHECK(fs::is_empty(dir / "model_files"));
}

TEST_CASE("run_dir removed while it is used: the state is saved anew, and the error is told") {
  const TempDir dir;
  comm::SingleRank group;
  const fs::path run_dir = dir / "run";
  const RunDirectory directory(group, run_dir);
  CheckpointStore store(group, {.directory = run_dir / "checkpoints", .owner = directory.owner()});
  store.save(state_of({}, 0, 1), step_of(1, 'a'));
  fs::remove_all(run_dir);
  const std::string message =
      message_of<Error>([&] { store.save(state_of({}, 0, 2), step_of(2, 'a')); });
  CHECK(has(message, "run_dir was removed while this run used it"));
  CHECK(has(message, "the state of step 2 is saved in a new one"));
  CHECK(store.save_again() == SaveAgain::never);
  CHECK(checkpoint::verify(run_dir / "checkpoints/step-00000002", checkpoint::Depth::contents)
            .problem.empty());
}

TEST_CASE("a full or failing disk is a checkpoint error, and no matter of permissions") {
  const TempDir dir;
  comm::SingleRank group;
  for (const int error : {ENOSPC, EDQUOT, EIO, ESTALE}) {
    const Fsync fails(error);
    try {
      const RunDirectory directory(group, dir / std::to_string(error));
      FAIL("it must throw");
    } catch (const Error& e) {
      INFO(e.what());
      CHECK(e.code() == ExitCode::checkpoint);
      CHECK(!has(e.what(), "permission"));
      CHECK(has(e.what(), std::generic_category().message(error)));
    }
  }
  const Fsync fails(EROFS);
  try {
    const RunDirectory directory(group, dir / "other");
    FAIL("it must throw");
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::config);
  }
}

TEST_CASE("room is asked for at the start: for keep checkpoints and one, all of it named") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 2});
  const checkpoint::RunIdentity run = step_of(1, 'a').run;
  const sharding::StateDict state = state_of({}, 0, 1);
  const auto refusal = [&](int64_t free, int64_t saves) {
    free_bytes = free;
    std::string message;
    try {
      store.require_space(state, run, saves);
    } catch (const Error& e) {
      message = e.what();
    }
    free_bytes = -1;
    return message;
  };
  const int64_t slack = (int64_t{1} << 20) + 100;
  const int64_t one = 4500;  // more than a checkpoint of this state takes, less than two
  CHECK(refusal(slack + one, 1) == "");
  CHECK(has(refusal(slack + one, 2), "checkpoint error: "));
  const std::string message = refusal(slack + one, 10);
  CHECK(has(message, "(3 x "));
  CHECK(has(message, "of manifest"));
  CHECK(has(message, "of slack for the file system"));
  CHECK(has(message, "lower checkpoint.keep"));
  // One is there by now: two more.
  store.save(state, step_of(1, 'a'));
  CHECK(has(refusal(slack + one, 10), "(2 x "));
  CHECK(refusal(slack + 2 * one, 10) == "");

  CheckpointStore all(group, {.directory = dir.path(), .keep = 0});
  free_bytes = slack + one;
  CHECK(has(all.require_space(state, run, 100), "(100 x "));  // a warning: the user may remove some
  free_bytes = -1;
}

TEST_CASE("a save that does not fit says what is counted, and may be tried later") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 2});
  free_bytes = 1 << 20;
  const std::string message =
      message_of<Error>([&] { store.save(state_of({}, 0, 1), step_of(1, 'a')); });
  free_bytes = -1;
  CHECK(has(message, "of shards and"));
  CHECK(has(message, "1.00 MiB of slack for the file system and the log"));
  CHECK(store.save_again() == SaveAgain::later);
}

TEST_CASE("removals that were cut short or failed are made up for without a save") {
  const TempDir dir;
  comm::SingleRank group;
  checkpoint::CheckpointInfo newest;
  {
    CheckpointStore store(group, {.directory = dir.path(), .keep = 0});
    for (const int64_t step : {1, 2, 3})
      newest = store.save(state_of({}, 0, step), step_of(step, 'a'));
  }
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  store.retain(newest);
  CHECK(store.retention_problems().empty());
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000003"});
}

}  // namespace
}  // namespace tptrain::testing
