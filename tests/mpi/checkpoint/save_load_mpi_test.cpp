// Saves and loads over real MPI ranks: the layouts of this world, a failing rank, a shared run_dir.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/shared_directory.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/mpi.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;

// One directory for all ranks, of rank 0, which outlives the others' use of it.
class SharedTempDir {
 public:
  SharedTempDir() {
    if (session().rank() == 0) own_.emplace();
    path_ = session().broadcast(own_ ? own_->path().string() : "", 0);
  }
  ~SharedTempDir() { session().barrier(); }
  const fs::path& path() const { return path_; }

 private:
  std::optional<TempDir> own_;
  fs::path path_;
};

std::vector<GridShape> grids_of(int ranks) {
  std::vector<GridShape> grids;
  for (int tp = 1; tp <= ranks; ++tp) {
    if (ranks % tp == 0) grids.push_back({.tp = tp, .dp = ranks / tp});
  }
  return grids;
}

TEST_CASE("checkpoints of every grid of this world load bitwise into every other") {
  const int rank = session().rank();
  for (const GridShape from : grids_of(session().size())) {
    const SharedTempDir dir;
    checkpoint::check_shared_directory(session(), dir.path());
    {
      CheckpointStore store(session(), {.directory = dir.path() / "checkpoints"});
      store.save(state_of(from, rank, 1), train_state_of(1, from));
      store.save(state_of(from, rank, 2), train_state_of(2, from));
    }
    for (const GridShape to : grids_of(session().size())) {
      INFO("tp " << from.tp << " dp " << from.dp << " -> tp " << to.tp << " dp " << to.dp);
      CheckpointStore store(session(), {.directory = dir.path() / "checkpoints"});
      sharding::StateDict state = empty_state(to, rank);
      const CheckpointStore::Found found = store.newest();
      REQUIRE(found.info);
      CHECK(found.info->state.tp_size == from.tp);
      store.load_into(state, *found.info);
      CHECK(wrong_elements(state, 2) == 0);
    }
  }
}

TEST_CASE("the last rank's failure is every rank's error") {
  const int last = session().size() - 1;
  const SharedTempDir dir;
  const GridShape grid{.tp = session().size(), .dp = 1};
  const auto fail = [&](std::string_view point) {
    if (session().rank() == last && point == "shard half written")
      throw CheckpointError(problem("write failed: No space left on device"));
  };
  CheckpointStore store(session(), {.directory = dir.path(), .fault_point = fail});
  const std::string message = message_of<Error>(
      [&] { store.save(state_of(grid, session().rank(), 1), train_state_of(1, grid)); });
  CHECK(has(message, "No space left on device"));
  if (session().size() > 1) CHECK(has(message, "[rank " + std::to_string(last) + "]"));
  CHECK(!store.newest().info);
}

}  // namespace
}  // namespace tptrain::testing
