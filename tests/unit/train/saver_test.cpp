// What becomes of a save that fails.
#include "train/saver.h"

#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using checkpoint::CheckpointStore;
using train::OnFailure;
using train::Saver;

// A store whose disk fails as often as it is told.
struct Disk {
  explicit Disk(OnFailure on_failure)
      : store(group, {.directory = dir.path(),
                      .fault_point =
                          [this](std::string_view point) {
                            if (point != "shard written") return;
                            ++attempts;
                            if (failures > 0 && failures-- > 0)
                              throw CheckpointError(problem("the disk failed"));
                          }}),
        saver(store, group, log, on_failure) {}

  std::optional<checkpoint::CheckpointInfo> save(int64_t step) {
    return saver.save(state_of({}, 0, step), train_state_of(step));
  }

  TempDir dir;
  comm::SingleRank group;
  Logger log{{.rank = 0, .console = false, .file = (dir / "log.txt").string()}};
  int failures = 0;
  int attempts = 0;
  CheckpointStore store;
  Saver saver;
};

TEST_CASE("a save that fails once is tried again at once", "[train]") {
  for (const OnFailure on_failure : {OnFailure::stop, OnFailure::go_on}) {
    Disk disk(on_failure);
    disk.failures = 1;
    const auto saved = disk.save(1);
    REQUIRE(saved);
    CHECK(disk.attempts == 2);
    CHECK(checkpoint::verify(saved->path, checkpoint::Depth::contents).problem.empty());
    CHECK_NOTHROW(disk.saver.throw_if_last_failed());
  }
}

TEST_CASE("a disk that goes on failing ends the run, or the next save is the next try", "[train]") {
  Disk strict(OnFailure::stop);
  strict.failures = 100;
  CHECK(has(message_of<Error>([&] { strict.save(1); }), "the disk failed"));
  CHECK(strict.attempts == 2);

  Disk patient(OnFailure::go_on);
  patient.failures = 2;
  CHECK_FALSE(patient.save(1));
  try {
    patient.saver.throw_if_last_failed();
    FAIL("the last save failed");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::checkpoint);
    CHECK(error.agreed());
    CHECK(has(error.what(), "the disk failed"));
  }
  CHECK(patient.save(2));
  CHECK_NOTHROW(patient.saver.throw_if_last_failed());
}

TEST_CASE("a fault of the program is not tried again", "[train]") {
  Disk disk(OnFailure::go_on);
  const sharding::StateDict gap = state_of({.tp = 2, .dp = 1}, 0, 1);  // the second half is missing
  CHECK(has(message_of<Error>([&] { disk.saver.save(gap, train_state_of(1)); }),
            "do not make up the model"));
  CHECK(disk.attempts == 0);
}

}  // namespace
}  // namespace tptrain::testing
