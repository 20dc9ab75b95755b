// Child processes for end-to-end tests: run a command with a time limit, keep what it prints and
// how it ended.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace tptrain::testing {

/// How long a test waits for what must come: many times what a slow and busy machine takes, so that
/// only what hangs is given up. A test that passes never waits so long.
inline constexpr std::chrono::seconds kPatience{300};

/// The bound of a test for what the program promises within `promised` on a machine of its own:
/// tests run on slower ones as well, beside other work.
constexpr std::chrono::seconds within(std::chrono::seconds promised) { return 8 * promised; }

struct ProcessResult {
  int exit_code = -1;  // 128 + signal where a signal ended it
  std::string standard_output;
  std::string output;  // standard output, then standard error
  double seconds = 0;
  bool timed_out = false;
};

/// A child in a process group of its own; destroyed with it.
class Process {
 public:
  /// argv[0] is searched on PATH. `directory` is the child's working directory.
  explicit Process(const std::vector<std::string>& argv,
                   const std::filesystem::path& directory = ".");
  ~Process();
  Process(const Process&) = delete;
  /// Signals the child, or its whole group.
  void signal(int number);
  void signal_group(int number);
  /// Waits; past the limit, counted from here, the group is killed and timed_out is set.
  ProcessResult wait(std::chrono::seconds limit = kPatience);
  /// Whether it has ended, waited for or not.
  bool has_ended() const;
  int pid() const { return pid_; }

 private:
  int pid_ = -1;
  bool reaped_ = false;
  std::filesystem::path output_file_;
  std::filesystem::path error_file_;
  std::chrono::steady_clock::time_point start_;
};

ProcessResult run_process(const std::vector<std::string>& argv,
                          const std::filesystem::path& directory = ".",
                          std::chrono::seconds limit = kPatience);

}  // namespace tptrain::testing
