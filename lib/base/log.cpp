// The only file that sees spdlog; it must see nothing of torch, whose fmt is another version.
#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/failure_tally.h"
#include "base/printable.h"
#include "base/special_file.h"
#include "base/terminal_line.h"
#include "base/text.h"

namespace tptrain {

struct Logger::Impl {
  std::string file;
  mutable std::mutex mutex;  // a watchdog's thread may log, too
  FailureTally failed;
  TerminalLine* terminal = nullptr;
  std::unique_ptr<spdlog::logger> log;
  std::string prefix;  // "[rank r] " where r > 0

  // spdlog takes a string view as it is: braces in a message are no format.
  void write(spdlog::level::level_enum level, std::string_view mark, std::string_view message) {
    std::string line = prefix;
    line.append(mark).append(printable(message));
    const auto print = [&] { log->log(level, spdlog::string_view_t(line.data(), line.size())); };
    if (terminal != nullptr) {
      terminal->step_aside(print);
    } else {
      print();
    }
  }

  // The other sinks have the line; what spdlog calls this from must not be logged to again.
  void tell_failure(const std::string& reason) {
    const std::lock_guard lock(mutex);
    if (!failed.note(reason)) return;
    std::fprintf(stderr, "WARNING: the log could not be written (%s); the run goes on\n",
                 reason.c_str());
  }
};

Logger::Logger(const LogOptions& options) : impl_(std::make_unique<Impl>()) {
  std::vector<spdlog::sink_ptr> sinks;
  const bool first = options.rank == 0;
  impl_->terminal = options.terminal;
  if (options.console) {
    // The other ranks speak only of trouble, so they use standard error.
    spdlog::sink_ptr console;
    if (first) {
      console = std::make_shared<spdlog::sinks::stdout_sink_mt>();
    } else {
      console = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    }
    console->set_pattern("%H:%M:%S %v");
    console->set_level(spdlog::level::info);
    sinks.push_back(std::move(console));
  }
  if (first && !options.file.empty()) {
    refuse_special_file(options.file);
    impl_->file = options.file;
    try {
      auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
      file->set_pattern("%m-%d %H:%M:%S %v");
      sinks.push_back(std::move(file));
    } catch (const spdlog::spdlog_ex& failure) {
      throw ConfigError(problem(std::string("the log cannot be opened (") + failure.what() + ")")
                            .at(options.file)
                            .remedy("Check that run_dir is a folder this user may write to."));
    }
  }
  impl_->log = std::make_unique<spdlog::logger>("tptrain", sinks.begin(), sinks.end());
  impl_->log->set_level(first ? spdlog::level::debug : spdlog::level::warn);
  Impl* const impl = impl_.get();  // stays where it is when the logger moves
  impl_->log->set_error_handler([impl](const std::string& reason) { impl->tell_failure(reason); });
  // A run that is killed must not take its last lines with it; lines are few.
  impl_->log->flush_on(spdlog::level::debug);
  if (!first) impl_->prefix = "[rank " + std::to_string(options.rank) + "] ";
}

Logger::~Logger() = default;
Logger::Logger(Logger&&) noexcept = default;
Logger& Logger::operator=(Logger&&) noexcept = default;

void Logger::info(std::string_view message) { impl_->write(spdlog::level::info, "", message); }
void Logger::note(std::string_view message) { impl_->write(spdlog::level::debug, "", message); }
void Logger::warn(std::string_view message) {
  impl_->write(spdlog::level::warn, "WARNING: ", message);
}
void Logger::error(std::string_view message) {
  impl_->write(spdlog::level::err, "ERROR: ", message);
}
void Logger::flush() { impl_->log->flush(); }

std::string Logger::failures() const {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->failed.count() == 0) return {};
  return cat(impl_->file, ": the log could not be written ", impl_->failed.count(),
             impl_->failed.count() == 1 ? " time" : " times", " (", impl_->failed.last_reason(),
             ")");
}

}  // namespace tptrain
