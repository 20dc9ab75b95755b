// A process that dies between any two steps of a save or a removal: what was committed is whole and
// found by the next start, what was not leaves no trace, and the next save works.
#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;
using checkpoint::Depth;
using FaultPoint = std::function<void(std::string_view)>;

void save(const fs::path& directory, int64_t step, int64_t keep,
          const FaultPoint& fault_point = {}) {
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = directory, .keep = keep, .fault_point = fault_point});
  store.save(state_of({}, 0, step), train_state_of(step));
}

// The steps a save of this kind passes, in order.
std::vector<std::string> protocol(int64_t keep) {
  const TempDir dir;
  for (const int64_t step : {1, 2}) save(dir.path(), step, 0);
  std::vector<std::string> points;
  save(dir.path(), 3, keep, [&](std::string_view point) { points.emplace_back(point); });
  return points;
}

// Runs `body` in a child that is gone, without any destructor, when it says so.
int exit_code_of_child(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(99);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void check_recovery(const fs::path& directory, int64_t expected_step) {
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = directory, .keep = 2});
  const CheckpointStore::Found found = store.newest();
  REQUIRE(found.info);
  CHECK(found.info->state.step == expected_step);
  sharding::StateDict state = empty_state({}, 0);
  store.load_into(state, *found.info);
  CHECK(wrong_elements(state, expected_step) == 0);
  for (const auto& entry : fs::directory_iterator(directory)) {
    CHECK(!has(entry.path().filename().string(), ".tmp-"));
  }
  // The run goes on, and the next save clears what a removal left behind.
  store.save(state_of({}, 0, 4), train_state_of(4));
  CHECK(store.retention_problems().empty());
  CHECK(store.newest().info->state.step == 4);
  CHECK(store.newest().refused.empty());
  for (const auto& verdict : checkpoint::list_checkpoints(directory, Depth::contents))
    CHECK(verdict.problem.empty());
}

TEST_CASE("the protocol's steps are those that the crashes below stand between") {
  at::set_num_threads(1);
  const std::vector<std::string> expected{"temporary directory made",
                                          "shard half written",
                                          "shard written",
                                          "records gathered",
                                          "directory synced",
                                          "committed",
                                          "acknowledged",
                                          "manifest removed",
                                          "shard removed",
                                          "directory removed",
                                          "manifest removed",
                                          "shard removed",
                                          "directory removed"};
  CHECK(protocol(1) == expected);
}

TEST_CASE("a crash between any two steps loses nothing that was committed") {
  at::set_num_threads(1);
  const std::vector<std::string> points = protocol(1);
  for (size_t crash = 0; crash < points.size(); ++crash) {
    INFO("crash after step " << crash << ": " << points[crash]);
    const TempDir dir;
    for (const int64_t step : {1, 2}) save(dir.path(), step, 0);
    const int code = exit_code_of_child([&] {
      size_t passed = 0;
      save(dir.path(), 3, 1, [&](std::string_view) {
        if (passed++ == crash) ::_exit(42);
      });
    });
    REQUIRE(code == 42);
    const bool committed = crash >= 5;  // "committed" is the sixth step
    check_recovery(dir.path(), committed ? 3 : 2);
  }
}

TEST_CASE("an error at any step before the commit leaves no trace, after it the checkpoint") {
  const std::vector<std::string> points = protocol(1);
  for (size_t failure = 0; failure < 7; ++failure) {
    INFO("failure after step " << failure << ": " << points[failure]);
    const TempDir dir;
    for (const int64_t step : {1, 2}) save(dir.path(), step, 0);
    size_t passed = 0;
    const std::string message = message_of<Error>([&] {
      save(dir.path(), 3, 1, [&](std::string_view) {
        if (passed++ == failure) throw CheckpointError(problem("write failed: Input/output error"));
      });
    });
    CHECK(has(message, "Input/output error"));
    check_recovery(dir.path(), failure >= 5 ? 3 : 2);
  }
}

TEST_CASE("a failed removal does not fail the save that is already committed") {
  const TempDir dir;
  comm::SingleRank group;
  const auto no_removal = [](std::string_view point) {
    if (point == "manifest removed")
      throw CheckpointError(problem("unlink failed: Input/output error").at("step-00000001"));
  };
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1, .fault_point = no_removal});
  store.save(state_of({}, 0, 1), train_state_of(1));
  store.save(state_of({}, 0, 2), train_state_of(2));
  REQUIRE(store.retention_problems().size() == 1);
  CHECK(store.retention_problems()[0] == "step-00000001: unlink failed: Input/output error");
  CHECK(store.newest().info->state.step == 2);
}

TEST_CASE(
    "a committed save whose rename did not happen is seen by tools and named by the next start") {
  const TempDir dir;
  save(dir.path(), 1, 0);
  save(dir.path(), 2, 0);
  const std::string id(32, 'a');
  fs::rename(dir / "step-00000002", dir / (".tmp-00000002-" + id));
  fs::create_directory(dir / (".tmp-00000003-" + id));  // never committed
  fs::create_directory(dir / ".tmp-somebody else's");   // not ours
  const auto list = checkpoint::list_checkpoints(dir.path(), Depth::contents);
  REQUIRE(list.size() == 2);
  CHECK(list[0].info->state.step == 2);
  CHECK(fs::exists(dir / (".tmp-00000002-" + id)));  // looking changes nothing

  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  CHECK(store.newest().info->path == dir / "step-00000002");
  CHECK(!fs::exists(dir / (".tmp-00000003-" + id)));
  CHECK(fs::exists(dir / ".tmp-somebody else's"));
}

TEST_CASE("a committed save that was damaged before its rename is shown, not cleaned away") {
  const TempDir dir;
  save(dir.path(), 1, 0);
  save(dir.path(), 2, 0);
  const fs::path temporary = dir / (".tmp-00000002-" + std::string(32, 'a'));
  fs::rename(dir / "step-00000002", temporary);
  dir.put(temporary.filename().string() + "/manifest.json", "{}");
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  const CheckpointStore::Found found = store.newest();
  CHECK(found.info->state.step == 1);
  REQUIRE(found.refused.size() == 1);
  CHECK(has(found.refused[0], "step-00000002"));
}

}  // namespace
}  // namespace tptrain::testing
