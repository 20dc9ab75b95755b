#include "checkpoint_trials.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "io_faults.h"
#include "process_group.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {

namespace fs = std::filesystem;
using checkpoint::CheckpointInfo;
using checkpoint::CheckpointStore;
using checkpoint::Depth;

namespace {

constexpr GridShape kGrid{.tp = 2, .dp = 2};
constexpr int64_t kKeep = 2;
constexpr int64_t kTemplateSteps = 2;
constexpr int64_t kSaves = 4;

bool is_kill(const std::string& kind) { return kind.starts_with("kill"); }

// As train::Saver does: what may be a fault of the moment is tried once more.
void save_and_say(CheckpointStore& store, comm::ControlGroup& group, Saving saving, int64_t step,
                  const Say& say) {
  for (int attempt = 1; attempt <= 2; ++attempt) {
    try {
      save(store, group, saving, state_of(kGrid, group.rank(), step), train_state_of(step, kGrid));
      say(cat("saved ", step));
      return;
    } catch (const Error& error) {
      if (!error.agreed()) throw;
      // All ranks must say the same: without the message, which names files by random numbers.
      say(cat("failed ", step, " with ", static_cast<int>(error.code())));
      if (store.save_again() != checkpoint::SaveAgain::at_once) return;
    }
  }
}

/// What a start may refuse without being wrong: the rest of a removal that was cut short.
bool is_rest_of_removal(const std::string& refused) { return has(refused, "has no manifest.json"); }

/// Loads the newest and checks its values. The step, 0 where there is none.
int64_t load_newest(comm::ControlGroup& group, CheckpointStore& store, GridShape grid,
                    bool disk_works) {
  const CheckpointStore::Found found = store.newest();
  for (const std::string& line : found.refused) {
    if (disk_works && !is_rest_of_removal(line)) throw std::runtime_error("refused: " + line);
  }
  if (!found.info) return 0;
  sharding::StateDict state = empty_state(grid, group.rank());
  store.load_into(state, *found.info);
  const int64_t step = found.info->state.step;
  if (const int64_t wrong = wrong_elements(state, step); wrong > 0)
    throw std::runtime_error(cat(wrong, " elements of step ", step, " are wrong"));
  return step;
}

/// The number behind the last "WORD " of what a rank said; `otherwise` where it did not say it.
int64_t last_said(const std::string& words, const std::string& word, int64_t otherwise) {
  std::istringstream lines(words);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(word + " ")) otherwise = std::stoll(line.substr(word.size() + 1));
  }
  return otherwise;
}

void copy_anew(const fs::path& from, const fs::path& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

/// The disturbed part: every rank goes on from the newest.
RanksEnded go_on(const fs::path& directory, const Fault& fault, Saving saving,
                 const fs::path& records = {}) {
  return run_processes(kGrid.ranks(), [&](comm::ControlGroup& group, const Say& say) {
    const bool hit = group.rank() == fault.rank;
    io_faults_arm(directory.c_str(), group.rank(), hit ? fault.call : 0, fault.kind.c_str(),
                  fault.stays ? 1 : 0, records.c_str());
    try {
      CheckpointStore store(group, {.directory = directory, .keep = kKeep});
      const int64_t first = load_newest(group, store, kGrid, /*disk_works=*/false) + 1;
      say(cat("from ", first));
      for (int64_t step = first; step < first + kSaves; ++step)
        save_and_say(store, group, saving, step, say);
    } catch (const Error& error) {
      // Of the start: a run ends with it, on every rank.
      if (!error.agreed() || error.code() != ExitCode::checkpoint) throw;
      say("the start failed");
    }
    if (hit || fault.call == 0) say(cat("count ", io_faults_count()));
  });
}

/// A start on a disk that works: what it goes on from, and that it can go on.
Judgement judge_next_start(const fs::path& directory, int64_t oldest, int64_t newest) {
  const RanksEnded ended =
      run_processes(kGrid.ranks(), [&](comm::ControlGroup& group, const Say& say) {
        CheckpointStore store(group, {.directory = directory, .keep = kKeep});
        const int64_t step = load_newest(group, store, kGrid, /*disk_works=*/true);
        say(cat("saved ", step));
        store.save(state_of(kGrid, group.rank(), step + 1), train_state_of(step + 1, kGrid));
        if (!store.retention_problems().empty())
          throw std::runtime_error("retention: " + store.retention_problems()[0]);
      });
  for (size_t rank = 0; rank < ended.codes.size(); ++rank) {
    if (ended.codes[rank] != 0)
      return cat("the next start: rank ", rank, " ended with ", ended.codes[rank], ", ",
                 ended.words[rank]);
  }
  const int64_t step = last_said(ended.words[0], "saved", 0);
  if (step < oldest) return cat("it goes on from step ", step, ", acknowledged was ", oldest);
  if (step > newest) return cat("it goes on from step ", step, ", begun was ", newest);
  int64_t held = 0;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name.starts_with('.')) return "remains: " + name;
    ++held;
  }
  if (held != kKeep) return cat(held, " checkpoints are held");
  return {};
}

}  // namespace

void save(CheckpointStore& store, comm::ControlGroup& group, Saving saving,
          const sharding::StateDict& state, const checkpoint::TrainState& train_state) {
  if (saving == Saving::at_once) {
    store.save(state, train_state);
    return;
  }
  using Progress = CheckpointStore::Progress;
  store.begin_save(state, train_state);
  store.start_writing();
  while (store.is_saving()) {
    const Progress own = store.save_progress();
    const bool all_done = group.sum(own == Progress::done ? 1 : 0) == group.size();
    const bool one_failed = group.max(own == Progress::failed ? 1 : 0) != 0;
    if (one_failed) store.give_up_writing();
    if (all_done || one_failed) store.continue_save();
  }
}

std::string text_of(const Fault& fault) {
  return cat(fault.kind, fault.stays ? " from call " : " at call ", fault.call, " of rank ",
             fault.rank);
}

void make_template(const fs::path& directory) {
  const RanksEnded ended = run_processes(kGrid.ranks(), [&](comm::ControlGroup& group, const Say&) {
    CheckpointStore store(group, {.directory = directory, .keep = kKeep});
    for (int64_t step = 1; step <= kTemplateSteps; ++step)
      store.save(state_of(kGrid, group.rank(), step), train_state_of(step, kGrid));
  });
  for (size_t rank = 0; rank < ended.codes.size(); ++rank) {
    if (ended.codes[rank] != 0) throw std::runtime_error("the template: " + ended.words[rank]);
  }
}

bool fits(const Fault& fault, const std::string& call) {
  const auto is_one_of = [&](std::initializer_list<const char*> calls) {
    return std::ranges::find(calls, call) != calls.end();
  };
  if (fault.kind == "short") return is_one_of({"write", "pwrite"});
  if (fault.kind == "EINTR")
    return is_one_of({"open", "read", "pread", "write", "pwrite", "fsync", "close", "flock"});
  if (fault.kind == "ENOSPC" || fault.kind == "EDQUOT")
    return is_one_of({"open", "write", "pwrite", "fsync", "mkdir", "rename"});
  return true;
}

std::vector<std::vector<std::string>> calls_of_ranks(const fs::path& start, const fs::path& work,
                                                     Saving saving) {
  copy_anew(start, work);
  const fs::path records = work.string() + "-records";
  fs::create_directory(records);
  const RanksEnded ended = go_on(work, {}, saving, records);
  std::vector<std::vector<std::string>> calls;
  for (size_t rank = 0; rank < ended.codes.size(); ++rank) {
    if (last_said(ended.words[rank], "saved", 0) != kTemplateSteps + kSaves)
      throw std::runtime_error("a run without a fault failed: " + ended.words[rank]);
    calls.emplace_back();
    std::ifstream lines(records / cat("rank-", rank, ".calls"));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string begin, end, number, name;
      fields >> begin >> end >> number >> name;
      calls.back().push_back(name);
    }
  }
  return calls;
}

Judgement trial_of_fault(const fs::path& start, const fs::path& work, const Fault& fault,
                         Saving saving, bool& met) {
  copy_anew(start, work);
  const RanksEnded ended = go_on(work, fault, saving);
  const auto hit = static_cast<size_t>(fault.rank);
  const std::string& words = ended.words[hit];
  const size_t count = words.find("count ");
  met = last_said(words, "count", fault.call) >= fault.call;
  for (size_t rank = 0; rank < ended.codes.size(); ++rank) {
    const int code = ended.codes[rank];
    const bool may_lose_peer = is_kill(fault.kind) && (code == kPeerIsGone || code == 137);
    if (code != 0 && !may_lose_peer)
      return cat("rank ", rank, " ended with ", code, ": ", ended.words[rank]);
    if (!is_kill(fault.kind) &&
        ended.words[rank].substr(0, ended.words[rank].find("count ")) != words.substr(0, count))
      return cat("the ranks do not agree: ", ended.words[rank], " against ", words);
  }
  const bool no_error = fault.kind == "EINTR" || fault.kind == "short";
  if (no_error && (has(words, "failed"))) return "an interruption is taken for an error";
  // Where the newest could not be read, it went on from the one before.
  const int64_t first = last_said(ended.words[0], "from", kTemplateSteps + 1);
  const int64_t last = first + kSaves - 1;
  const int64_t saved = last_said(ended.words[0], "saved", 0);
  const bool once = !is_kill(fault.kind) && !fault.stays;
  // What fails but once is tried again: no save is missing.
  if (once && !has(words, "the start failed") && saved != last)
    return cat("one error, and the last save is of step ", saved, ": ", words);
  return judge_next_start(work, saved > 0 ? saved : kTemplateSteps, std::max(last, kTemplateSteps));
}

namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

void put(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// The checkpoint of that step.
fs::path at_step(const fs::path& directory, int64_t step) {
  return directory / cat("step-0000000", step);
}

struct Damage {
  std::string what;
  std::string file;  // that must be named
};

Damage damage(const fs::path& directory, const std::string& kind, std::mt19937_64& random) {
  const fs::path newest = at_step(directory, kTemplateSteps);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(newest)) files.push_back(entry.path());
  std::ranges::sort(files);
  std::vector<fs::path> shards;
  for (const fs::path& file : files) {
    if (file.extension() == ".safetensors") shards.push_back(file);
  }
  fs::path file = files[random() % files.size()];
  std::string bytes = bytes_of(file);
  if (kind == "flip") {
    const uint64_t bit = random() % (8 * bytes.size());
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    put(file, bytes);
    return {cat("bit ", bit), file.filename()};
  }
  if (kind == "truncation") {
    const size_t size = random() % bytes.size();
    put(file, bytes.substr(0, size));
    return {cat("cut to ", size), file.filename()};
  }
  file = shards[random() % shards.size()];
  const std::string name = file.filename();
  switch (random() % 3) {
    case 0:
      fs::remove(file);
      return {"missing", name};
    case 1:
      put(file, bytes_of(at_step(directory, kTemplateSteps - 1) / name));
      return {"of another step", name};
    default: {
      fs::path other = file;
      while (other == file) other = shards[random() % shards.size()];
      const std::string mine = bytes_of(file);
      put(file, bytes_of(other));
      put(other, mine);
      return {"exchanged with " + other.filename().string(), ""};
    }
  }
}

}  // namespace

Judgement trial_of_damage(const fs::path& start, const fs::path& work, const std::string& kind,
                          std::mt19937_64& random) {
  copy_anew(start, work);
  const Damage done = damage(work, kind, random);
  const std::string what = cat(kind, " of ", done.file, ", ", done.what, ": ");
  const checkpoint::Verdict verdict =
      checkpoint::verify(at_step(work, kTemplateSteps), Depth::contents);
  if (verdict.problem.empty()) return what + "not noticed";
  const std::string named = done.file == "manifest.json" ? "manifest" : done.file;
  if (!has(verdict.problem, named)) return what + "not named in: " + verdict.problem;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = work, .keep = kKeep});
  try {
    const CheckpointStore::Found found = store.newest();
    if (!found.info || found.info->state.step != kTemplateSteps - 1)
      return what + "the one before is not taken";
    if (found.refused.size() != 1) return what + "it is not said";
    sharding::StateDict state = empty_state({}, 0);
    store.load_into(state, *found.info);
    if (wrong_elements(state, kTemplateSteps - 1) > 0) return what + "wrong values";
  } catch (const std::exception& error) {
    return what + error.what();
  }
  return {};
}

Judgement trial_of_clean_load(const fs::path& start) {
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = start, .keep = kKeep});
  try {
    const int64_t step = load_newest(group, store, {}, /*disk_works=*/true);
    return step == kTemplateSteps ? "" : cat("step ", step, " is taken");
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace tptrain::testing
