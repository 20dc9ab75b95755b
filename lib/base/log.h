// The log of a run: rank 0 to the console and run_dir/log.txt, the other ranks only warnings and
// errors. A line of the file begins with month, day and time: the year stands in its first line.
// Hides spdlog, whose fmt must not meet torch's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace tptrain {

class TerminalLine;

struct LogOptions {
  int rank = 0;
  bool console = true;    // rank 0 prints to standard output
  std::string file = {};  // appended to by rank 0; empty: none
  /// Steps aside for the console's lines; outlives the logger. Null: there is none.
  TerminalLine* terminal = nullptr;
};

class Logger {
 public:
  /// Throws ConfigError where the file cannot be opened, or is one that a writer would wait at (a
  /// FIFO).
  explicit Logger(const LogOptions& options);
  ~Logger();
  Logger(Logger&&) noexcept;
  Logger& operator=(Logger&&) noexcept;

  void info(std::string_view message);   // rank 0 only
  void note(std::string_view message);   // rank 0 only, to the file alone
  void warn(std::string_view message);   // every rank, with "[rank r]" before it where r > 0
  void error(std::string_view message);  // every rank, likewise
  void flush();

  /// What could not be written to the file, in one line; empty where all could. A log that fails
  /// does not end a run: standard error says so once, and then rarely.
  std::string failures() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain
