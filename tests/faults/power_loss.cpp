#include "power_loss.h"

#include <stdexcept>

#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "io_faults.h"
#include "process_group.h"
#include "support/checkpoint_states.h"

namespace tptrain::testing {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;

namespace {

constexpr GridShape kGrid{.tp = 2, .dp = 2};
constexpr int64_t kSaves = 8;
constexpr const char* kAcknowledged = "acknowledged ";

}  // namespace

std::vector<RecordedCall> record_saves(const fs::path& work, Saving saving) {
  const fs::path folder = work / "folder", records = work / "records";
  fs::create_directories(folder);
  fs::create_directories(records);
  const RanksEnded ended = run_processes(kGrid.ranks(), [&](comm::ControlGroup& group, const Say&) {
    io_faults_arm(folder.c_str(), group.rank(), 0, "", 0, records.c_str());
    int64_t step = 0;
    const auto note = [&](std::string_view point) {
      if (point == "acknowledged") io_faults_note(cat(kAcknowledged, step).c_str());
    };
    CheckpointStore store(group,
                          {.directory = folder / "checkpoints", .keep = 2, .fault_point = note});
    for (step = 1; step <= kSaves; ++step)
      save(store, group, saving, state_of(kGrid, group.rank(), step), train_state_of(step, kGrid));
  });
  for (size_t rank = 0; rank < ended.codes.size(); ++rank) {
    if (ended.codes[rank] != 0) throw std::runtime_error("the recorded run: " + ended.words[rank]);
  }
  return read_record(records, kGrid.ranks(), folder);
}

std::string trial_of_power_loss(const std::vector<RecordedCall>& calls, const fs::path& work,
                                std::mt19937_64& random) {
  const size_t crash = random() % (calls.size() + 1);
  int64_t acknowledged = 0;
  for (size_t i = 0; i < crash; ++i) {
    if (calls[i].path.starts_with(kAcknowledged))
      acknowledged = std::stoll(calls[i].path.substr(std::string(kAcknowledged).size()));
  }
  fs::remove_all(work);
  make_crash_state(calls, crash, random, work);
  const std::string what =
      cat("after call ", crash, ", acknowledged was step ", acknowledged, ": ");
  try {
    comm::SingleRank group;
    CheckpointStore store(group, {.directory = work / "checkpoints", .keep = 2});
    const CheckpointStore::Found found = store.newest();
    const int64_t step = found.info ? found.info->state.step : 0;
    if (step < acknowledged) return cat(what, "step ", step, " is found");
    if (!found.info) return {};
    sharding::StateDict state = empty_state({}, 0);
    store.load_into(state, *found.info);
    if (wrong_elements(state, step) > 0) return what + "wrong values";
    store.save(state_of({}, 0, step + 1), train_state_of(step + 1));
  } catch (const std::exception& error) {
    // Where nothing was acknowledged yet, a first save that is no save may be all there is.
    if (acknowledged > 0) return what + error.what();
  }
  return {};
}

std::vector<RecordedCall> without_sync(std::vector<RecordedCall> calls, const std::string& part) {
  const size_t before = calls.size();
  std::erase_if(calls, [&](const RecordedCall& call) {
    return call.kind == RecordedCall::Kind::sync && call.path.find(part) != std::string::npos;
  });
  if (calls.size() == before) throw std::runtime_error("nothing whose path holds " + part);
  return calls;
}

}  // namespace tptrain::testing
