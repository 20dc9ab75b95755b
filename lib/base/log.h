// The log of a run: rank 0 to the console and run_dir/log.txt, the other ranks only warnings and
// errors. Hides spdlog, whose fmt must not meet torch's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace tptrain {

struct LogOptions {
  int rank = 0;
  int world_size = 1;
  bool console = true;    // rank 0 prints to standard output
  std::string file = {};  // appended to by rank 0; empty: none
};

class Logger {
 public:
  explicit Logger(const LogOptions& options);
  ~Logger();
  Logger(Logger&&) noexcept;
  Logger& operator=(Logger&&) noexcept;

  void info(std::string_view message);   // rank 0 only
  void warn(std::string_view message);   // every rank, with "[rank r]" before it where r > 0
  void error(std::string_view message);  // every rank, likewise
  void flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain
