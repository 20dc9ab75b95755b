// A small real run for end-to-end tests: a folder with text and a run file, and mpirun of the
// program on it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/process.h"
#include "support/temp_dir.h"

namespace tptrain::testing {

namespace fs = std::filesystem;

class Job {
 public:
  /// Makes text/ (train.txt, eval.txt) and run.yaml in a temporary directory: 2 layers, hidden 32,
  /// 8 steps, tp 2 x dp 2, ZeRO-1, a checkpoint every 3 steps.
  Job();

  fs::path directory() const { return temporary_.path(); }
  fs::path run_dir() const { return directory() / "run"; }
  fs::path config() const { return directory() / "run.yaml"; }
  /// Replaces the first occurrence of `from` in the run file; throws where there is none, so that a
  /// test cannot pass by accident.
  void edit(const std::string& from, const std::string& to);

  /// mpirun -n ranks tptrain <arguments>, in directory().
  std::vector<std::string> command(int ranks, const std::vector<std::string>& arguments) const;
  ProcessResult run(int ranks = 4, const std::vector<std::string>& more = {}) const;
  /// The program without mpirun.
  ProcessResult tool(const std::vector<std::string>& arguments) const;

 private:
  TempDir temporary_;
};

std::string read_text(const fs::path& path);
void write_text(const fs::path& path, const std::string& text);
/// Steps of metrics.jsonl with the five fields that equal runs have in common, as text.
std::vector<std::string> metric_lines(const fs::path& run_dir);
/// name -> bytes of the shards of a checkpoint.
std::map<std::string, std::string> shards_of(const fs::path& checkpoint);
/// Processes whose command line holds `text`.
std::vector<int> processes_with(const std::string& text);
/// Rank -> process id of the ranks among them that are there: mpirun's child is one once it has
/// become the program.
std::map<int, int> ranks_with(const std::string& text);
/// Whether the process would survive the signal: it catches it, or holds it back until it does.
bool hears(int pid, int signal);
/// Whether the last of them ends, in a multiple of the 5 s that the program promises: a killed
/// process needs a moment to give back its memory.
bool all_gone(const std::string& text);
/// Waits until it holds; false where the process has ended without it, or after kPatience.
bool wait_until(const Process& process, const std::function<bool()>& holds);
/// ... for the path to appear.
bool wait_for(const Process& process, const fs::path& path);
/// ... for that step to stand in metrics.jsonl.
bool wait_for_step(const Process& process, const fs::path& run_dir, int64_t step);
/// ... until so many ranks are there, which are returned: fewer where the wait was in vain.
std::map<int, int> wait_for_ranks(const Process& process, const std::string& marker, size_t count);
/// A train.hang_timeout_s that is no shorter than `least` and so long that this machine, busy as it
/// is, does not take the start of four ranks for one that hangs.
int hang_timeout_s(int least);
/// The one checkpoint directory of that step.
fs::path checkpoint_at(const fs::path& run_dir, int64_t step);

}  // namespace tptrain::testing
