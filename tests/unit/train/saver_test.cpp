// What becomes of a save that fails.
#include "train/saver.h"

#include <atomic>
#include <map>
#include <mutex>

#include "base/text.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::testing {
namespace {

using checkpoint::CheckpointStore;
using train::OnFailure;
using train::Saver;

// In bytes, of what a rank saves.
int64_t values_of(const sharding::StateDict& state) {
  int64_t bytes = 0;
  for (const sharding::StatePiece& piece : state.pieces) {
    if (piece.save) bytes += piece.data.numel() * static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

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
        saver(store, group, log, on_failure, nullptr,
              [this](const train::Saved& saved) { last = saved.info; }) {}

  /// What was committed by it.
  std::optional<checkpoint::CheckpointInfo> save(int64_t step) {
    last.reset();
    saver.save(state_of({}, 0, step), train_state_of(step));
    return last;
  }

  TempDir dir;
  comm::SingleRank group;
  Logger log{{.rank = 0, .console = false, .file = (dir / "log.txt").string()}};
  int failures = 0;
  int attempts = 0;
  std::optional<checkpoint::CheckpointInfo> last;
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

// Four ranks that save a state from copies, with a disk each that can be told to fail.
struct Ranks {
  static constexpr GridShape kGrid{.tp = 2, .dp = 2};

  struct Rank {
    Rank(Ranks& ranks, comm::ControlGroup& group, OnFailure on_failure)
        : group(group),
          log({.rank = group.rank(), .console = false, .file = (ranks.dir / "log.txt").string()}),
          live(state_of(kGrid, group.rank(), 1)),
          snapshot(live, at::kCPU),
          store(group, {.directory = ranks.dir / "checkpoints",
                        .keep = 2,
                        .fault_point =
                            [&ranks, &group](std::string_view point) {
                              if (ranks.fault) ranks.fault(group.rank(), point);
                            }}),
          saver(store, group, log, on_failure, &snapshot,
                [this](const train::Saved& done) { saved.push_back(done); }) {}

    /// The live state becomes that of `step`, in the same memory.
    void set(int64_t step) {
      saver.let_state_change();
      const sharding::StateDict values = state_of(kGrid, group.rank(), step);
      for (size_t i = 0; i < live.pieces.size(); ++i)
        live.pieces[i].data.copy_(values.pieces[i].data);
    }
    void save(int64_t step) {
      set(step);
      saver.save(live, train_state_of(step, kGrid));
    }
    /// A step boundary, as the training has it.
    void boundary() {
      using Progress = CheckpointStore::Progress;
      const Progress own = saver.progress();
      const bool failed = group.max(own == Progress::failed) != 0;
      const bool done = group.max(own != Progress::done) == 0;
      if (failed || done) saver.continue_save(failed);
    }

    comm::ControlGroup& group;
    Logger log;
    sharding::StateDict live;
    zero::StateSnapshot snapshot;
    CheckpointStore store;
    std::vector<train::Saved> saved;
    Saver saver;
  };

  void run(OnFailure on_failure, const std::function<void(Rank&)>& body) {
    run_ranks(kGrid.ranks(), [&](comm::ControlGroup& group) {
      Rank rank(*this, group, on_failure);
      body(rank);
    });
  }
  int64_t wrong_elements_at(int64_t step) const {
    comm::SingleRank group;
    CheckpointStore store(group, {.directory = dir / "checkpoints", .keep = 0});
    sharding::StateDict state = empty_state({}, 0);
    store.load_into(state, store.open(dir / "checkpoints" / cat("step-0000000", step)));
    return wrong_elements(state, step);
  }
  /// Catch takes one thread's checks at a time: those of a rank go through here.
  void in_turn(const std::function<void()>& checks) {
    const std::lock_guard lock(checking);
    checks();
  }
  bool has_unfinished() const {
    for (const auto& entry : std::filesystem::directory_iterator(dir / "checkpoints"))
      if (has(entry.path().filename().string(), ".tmp-")) return true;
    return false;
  }

  TempDir dir;
  std::function<void(int rank, std::string_view point)> fault;
  std::mutex checking;
};

TEST_CASE("what is saved beside the steps is the state of its step, though it changes meanwhile",
          "[train]") {
  Ranks ranks;
  ranks.run(OnFailure::go_on, [&](Ranks::Rank& rank) {
    for (const int64_t step : {1, 2, 3}) {
      rank.save(step);
      rank.set(7);  // the next step's update
      for (int i = 0; i < 1000 && rank.saver.is_saving(); ++i) rank.boundary();
      rank.saver.finish();
    }
    ranks.in_turn([&] {
      REQUIRE(rank.saved.size() == 3);
      CHECK(rank.saved[2].bytes > 0);
      CHECK(rank.saved[2].save_s > 0);
      CHECK(rank.saved[2].stall_s > 0);  // what is old may be removed after the commit
    });
    rank.save(4);
    rank.save(5);  // the one under way is waited for
    const int64_t ahead = rank.store.bytes_to_write();
    rank.saver.finish();
    ranks.in_turn([&] {
      CHECK(rank.saved.size() == 5);
      CHECK(ahead == values_of(rank.live));
      CHECK(rank.store.bytes_to_write() == 0);
    });
  });
  CHECK(ranks.wrong_elements_at(4) == 0);
  CHECK(ranks.wrong_elements_at(5) == 0);
  CHECK(
      checkpoint::list_checkpoints(ranks.dir / "checkpoints", checkpoint::Depth::contents).size() ==
      2);  // checkpoint.keep
  CHECK(has(contents_of(ranks.dir / "log.txt"), "the save of step 5 waited "));
}

TEST_CASE("a save at once and one beside the steps write the same bytes", "[train]") {
  std::map<std::string, std::string> shards[2];
  for (const bool async : {false, true}) {
    Ranks ranks;
    ranks.run(OnFailure::stop, [&](Ranks::Rank& rank) {
      rank.set(3);
      if (async) {
        rank.save(3);
        rank.saver.finish();
      } else {
        rank.store.save(rank.live, train_state_of(3, Ranks::kGrid));
      }
    });
    for (int i = 0; i < 4; ++i) {
      const std::string name = cat("shard-0000", i, "-of-00004.safetensors");
      shards[async][name] = contents_of(ranks.dir / "checkpoints/step-00000003" / name);
      CHECK(!shards[async][name].empty());
    }
  }
  CHECK(shards[0] == shards[1]);
}

TEST_CASE("a disk that fails one rank's save beside the steps: all try again, or go on",
          "[train]") {
  for (const int failures : {1, 2}) {
    Ranks ranks;
    std::atomic<int> left = failures;
    ranks.fault = [&](int rank, std::string_view point) {
      if (rank == 2 && point == "shard half written" && left-- > 0)
        throw CheckpointError(problem("the disk of rank 2 failed"));
    };
    ranks.run(OnFailure::go_on, [&](Ranks::Rank& rank) {
      rank.save(1);
      rank.set(2);
      for (int i = 0; i < 100000 && rank.saver.is_saving(); ++i) rank.boundary();
      ranks.in_turn([&] {
        CHECK(!rank.saver.is_saving());
        CHECK(rank.saved.size() == (failures == 1 ? 1 : 0));
        CHECK(rank.saver.last_failed() == (failures == 2));
      });
      rank.save(3);
      rank.saver.finish();
      ranks.in_turn([&] { CHECK_NOTHROW(rank.saver.throw_if_last_failed()); });
    });
    if (failures == 1) CHECK(ranks.wrong_elements_at(1) == 0);
    CHECK(ranks.wrong_elements_at(3) == 0);
    CHECK_FALSE(ranks.has_unfinished());
    const std::string log = contents_of(ranks.dir / "log.txt");
    CHECK(has(log, "[rank 2]"));
    CHECK(has(log, "the disk of rank 2 failed"));
  }
}

TEST_CASE("a commit that fails beside the steps ends the run where on_failure is stop", "[train]") {
  Ranks ranks;
  ranks.fault = [](int, std::string_view point) {
    if (point == "records gathered") throw CheckpointError(problem("no commit today"));
  };
  std::atomic<int> thrown = 0;
  ranks.run(OnFailure::stop, [&](Ranks::Rank& rank) {
    rank.save(1);
    try {
      rank.saver.finish();
    } catch (const Error& error) {
      thrown += error.agreed() && has(error.what(), "no commit today");
    }
    ranks.in_turn([&] { CHECK_FALSE(rank.saver.is_saving()); });
  });
  CHECK(thrown == 4);
  CHECK_FALSE(ranks.has_unfinished());
}

TEST_CASE("a store that goes while it saves leaves what the next start clears away", "[train]") {
  Ranks ranks;
  ranks.run(OnFailure::go_on, [](Ranks::Rank& rank) {
    rank.save(1);
    rank.saver.finish();
    rank.save(2);
    rank.saver.progress();
  });
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = ranks.dir / "checkpoints", .keep = 2});
  CHECK(store.newest().info->state.step == 1);
  CHECK_FALSE(ranks.has_unfinished());
  CHECK(ranks.wrong_elements_at(1) == 0);
}

}  // namespace
}  // namespace tptrain::testing
