// A small real run for end-to-end tests: a folder with text and a run file, and mpirun of the
// program on it.
#pragma once

#include <filesystem>
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
/// Whether the last of them ends within 5 s: a killed process needs a moment to give back its memory.
bool all_gone(const std::string& text);
/// Waits up to 30 s for the path to appear.
bool wait_for(const fs::path& path);
/// Waits up to 30 s for that step to stand in metrics.jsonl.
bool wait_for_step(const fs::path& run_dir, int64_t step);
/// The one checkpoint directory of that step.
fs::path checkpoint_at(const fs::path& run_dir, int64_t step);

}  // namespace tptrain::testing
