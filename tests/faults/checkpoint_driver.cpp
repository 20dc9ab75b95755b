// The checkpoint store under faults, milliseconds a trial: four forked ranks (process_group.h), a
// small state, and a disk that fails on purpose (io_faults.h, linked before the C library).
//
//   checkpoint_driver kills  --trials 2000     a rank is killed before or after a random call
//   checkpoint_driver kills  --sweep           ... each call of each rank, before and after
//   checkpoint_driver errors --trials 2000     EIO, ENOSPC, EDQUOT (once, or from there on), EINTR,
//   short writes checkpoint_driver power  --trials 10000    the power fails at a random moment of
//   eight saves checkpoint_driver damage --trials 11100    bit flips, truncations, missing, foreign
//   and exchanged shards checkpoint_driver clean  --trials 1000     undamaged ones: no false alarm
//
// --async: the saves are done beside their caller, by other threads. Prints a summary and each
// failure; exit code 1 where there was one. --seed repeats a run.
#include <ATen/Parallel.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint_trials.h"
#include "power_loss.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string what;
  int64_t trials = 100;
  bool sweep = false;
  Saving saving = Saving::at_once;
  uint64_t seed = std::random_device()();
};

Arguments parse(const std::vector<std::string>& words) {
  if (words.empty())
    throw std::runtime_error("what is to be tried? kills, errors, power, damage, clean");
  Arguments arguments{.what = words[0]};
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--sweep") {
      arguments.sweep = true;
      continue;
    }
    if (words[i] == "--async") {
      arguments.saving = Saving::beside;
      continue;
    }
    if (i + 1 == words.size()) throw std::runtime_error(words[i] + " lacks its value");
    if (words[i] == "--trials") {
      arguments.trials = std::stoll(words[++i]);
    } else if (words[i] == "--seed") {
      arguments.seed = std::stoull(words[++i]);
    } else {
      throw std::runtime_error("unknown: " + words[i]);
    }
  }
  return arguments;
}

class Tally {
 public:
  void note(const std::string& trial, const Judgement& judgement) {
    ++done_;
    if (judgement.empty()) return;
    ++failed_;
    std::printf("FAILED %s: %s\n", trial.c_str(), judgement.c_str());
    std::fflush(stdout);
  }
  int end(const Arguments& arguments) const {
    std::printf("%s: %lld of %lld as they must be (seed %llu)\n", arguments.what.c_str(),
                static_cast<long long>(done_ - failed_), static_cast<long long>(done_),
                static_cast<unsigned long long>(arguments.seed));
    return failed_ == 0 && done_ > 0 ? 0 : 1;
  }
  int64_t failed() const { return failed_; }

 private:
  int64_t done_ = 0;
  int64_t failed_ = 0;
};

std::vector<Fault> kinds_of_faults(const std::string& what) {
  if (what == "kills") return {{.kind = "kill"}, {.kind = "kill_after"}};
  return {{.kind = "EIO"},
          {.kind = "ENOSPC"},
          {.kind = "EDQUOT"},
          {.kind = "EINTR"},
          {.kind = "short"},
          {.kind = "ENOSPC", .stays = true},
          {.kind = "EIO", .stays = true}};
}

void try_fault(const Fault& fault, Saving saving, const fs::path& start, const fs::path& work,
               Tally& tally) {
  bool met = false;
  const Judgement judgement = trial_of_fault(start, work, fault, saving, met);
  tally.note(text_of(fault), met || !judgement.empty() ? judgement : "the call was not reached");
}

int try_faults(const Arguments& arguments, const fs::path& folder) {
  const fs::path start = folder / "template", work = folder / "work";
  make_template(start);
  const std::vector<std::vector<std::string>> calls = calls_of_ranks(start, work, arguments.saving);
  std::vector<Fault> all;
  for (const Fault& kind : kinds_of_faults(arguments.what)) {
    for (size_t rank = 0; rank < calls.size(); ++rank) {
      for (size_t call = 0; call < calls[rank].size(); ++call) {
        if (!fits(kind, calls[rank][call])) continue;
        all.push_back({.rank = static_cast<int>(rank),
                       .call = static_cast<int64_t>(call) + 1,
                       .kind = kind.kind,
                       .stays = kind.stays});
      }
    }
  }
  std::printf("calls of the ranks: %zu %zu %zu %zu; %zu points\n", calls[0].size(), calls[1].size(),
              calls[2].size(), calls[3].size(), all.size());
  Tally tally;
  std::mt19937_64 random(arguments.seed);
  const auto trials = arguments.sweep ? static_cast<int64_t>(all.size()) : arguments.trials;
  for (int64_t i = 0; i < trials; ++i)
    try_fault(all[arguments.sweep ? static_cast<size_t>(i) : random() % all.size()],
              arguments.saving, start, work, tally);
  return tally.end(arguments);
}

int try_power_loss(const Arguments& arguments, const fs::path& folder) {
  const std::vector<RecordedCall> calls = record_saves(folder / "record", arguments.saving);
  std::mt19937_64 random(arguments.seed);
  Tally tally;
  for (int64_t i = 0; i < arguments.trials; ++i)
    tally.note("power loss", trial_of_power_loss(calls, folder / "work", random));
  // What would go unseen if the model were too kind to the program.
  for (const std::string part : {"shard-", "manifest", "checkpoints"}) {
    const std::vector<RecordedCall> careless = without_sync(calls, part);
    int64_t lost = 0;
    for (int i = 0; i < 200; ++i)
      lost += !trial_of_power_loss(careless, folder / "work", random).empty();
    std::printf("without the fsync of %s: %lld of 200 states lose something\n", part.c_str(),
                static_cast<long long>(lost));
    if (lost == 0) tally.note("a program that does not sync " + part, "is not found out");
  }
  return tally.end(arguments);
}

int try_damage(const Arguments& arguments, const fs::path& folder) {
  const fs::path start = folder / "template";
  make_template(start);
  std::mt19937_64 random(arguments.seed);
  Tally tally;
  for (int64_t i = 0; i < arguments.trials; ++i) {
    // 100 flips to 10 truncations and one shard in another's place, as a reader of disks would.
    const uint64_t lot = random() % 111;
    const std::string kind = lot < 100 ? "flip" : lot < 110 ? "truncation" : "shard";
    tally.note("damage", trial_of_damage(start, folder / "work", kind, random));
  }
  return tally.end(arguments);
}

int try_clean_loads(const Arguments& arguments, const fs::path& folder) {
  const fs::path start = folder / "template";
  make_template(start);
  Tally tally;
  for (int64_t i = 0; i < arguments.trials; ++i)
    tally.note("clean load", trial_of_clean_load(start));
  return tally.end(arguments);
}

int run(const std::vector<std::string>& words) {
  const Arguments arguments = parse(words);
  at::set_num_threads(1);  // what forks must have no other threads
  // In memory, where there is room for it: what is tried is the order of calls, not the disk.
  const char* const memory = "/dev/shm";
  if (::access(memory, W_OK) == 0) ::setenv("TMPDIR", memory, /*overwrite=*/0);
  const TempDir folder;
  if (arguments.what == "power") return try_power_loss(arguments, folder.path());
  if (arguments.what == "damage") return try_damage(arguments, folder.path());
  if (arguments.what == "clean") return try_clean_loads(arguments, folder.path());
  if (arguments.what == "kills" || arguments.what == "errors")
    return try_faults(arguments, folder.path());
  throw std::runtime_error("unknown: " + arguments.what);
}

}  // namespace
}  // namespace tptrain::testing

int main(int argc, char** argv) {
  try {
    return tptrain::testing::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "checkpoint_driver: %s\n", error.what());
    return 2;
  }
}
