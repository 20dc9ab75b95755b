#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "metrics/step_metrics.h"

namespace tptrain::metrics {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRedrawInterval{100};
constexpr double kAverageWeight = 0.1;  // of the newest step time: about the last 20 steps count
constexpr int kBarCells = 24;
constexpr int kDefaultWidth = 80;
constexpr std::string_view kEraseLine = "\r\x1b[K";

int terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultWidth;
  return size.ws_col;
}

// A display is an ornament: where the terminal does not take it, training goes on.
void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

// Whether a person looks at our standard output. Open MPI gives its ranks a pseudo-terminal even
// where mpirun itself writes into a pipe or a file, so under mpirun it is the parent's standard
// output that counts.
bool on_a_terminal() {
  if (::isatty(STDOUT_FILENO) != 1) return false;
  if (::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return true;
  struct stat output {};
  if (::stat(cat("/proc/", ::getppid(), "/fd/1").c_str(), &output) != 0 || !S_ISCHR(output.st_mode))
    return false;
  constexpr unsigned kFirstPtyMajor = 136, kLastPtyMajor = 143,
                     kTtyMajor = 4;  // Linux, Documentation/admin-guide/devices.txt
  const unsigned major = gnu_dev_major(output.st_rdev);
  return major == kTtyMajor || (major >= kFirstPtyMajor && major <= kLastPtyMajor);
}

std::string bar(double fraction) {
  const int filled = static_cast<int>(fraction * kBarCells);
  std::string cells(static_cast<size_t>(filled), '=');
  if (filled < kBarCells) cells += '>';
  cells.resize(kBarCells, ' ');
  return cat("[", cells, "] ");
}

}  // namespace

std::string duration_text(double seconds) {
  const int64_t total = std::isfinite(seconds) ? std::llround(std::max(0.0, seconds)) : 0;
  const int64_t hours = total / 3600;
  const int64_t minutes = total / 60 % 60;
  if (hours >= 48) return cat(hours / 24, "d ", hours % 24, "h");
  if (hours > 0) return cat(hours, "h ", minutes, "m");
  if (minutes > 0) return cat(minutes, "m ", total % 60, "s");
  return cat(total, "s");
}

std::string progress_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width) {
  const double fraction =
      max_steps > 0
          ? std::clamp(static_cast<double>(metrics.step) / static_cast<double>(max_steps), 0.0, 1.0)
          : 0.0;
  const std::string step = cat("step ", metrics.step, "/", max_steps);
  const std::string loss = cat("  loss ", fixed(metrics.loss, 4));
  const std::string eta = cat("  ETA ", duration_text(eta_s));
  const std::string rate =
      cat("  ", with_thousands(std::llround(metrics.tokens_per_second)), " tokens/s");
  // The last column stays free: a full line makes some terminals wrap, and \r would no longer reach
  // its beginning.
  const size_t room = static_cast<size_t>(std::max(0, width - 1));
  for (const std::string& line : {bar(fraction) + step + loss + rate + eta,
                                  step + loss + rate + eta, step + loss + eta, step + loss}) {
    if (line.size() <= room) return line;
  }
  return step.substr(0, room);
}

struct ProgressDisplay::Impl {
  int64_t first_step = 0;
  int64_t max_steps = 0;
  bool enabled = false;
  bool drawn = false;
  std::optional<double> average_step_s;
  std::optional<Clock::time_point> last_draw;
};

ProgressDisplay::ProgressDisplay(int64_t first_step, int64_t max_steps, bool enabled)
    : impl_(std::make_unique<Impl>()) {
  impl_->max_steps = max_steps;
  impl_->first_step = first_step;
  impl_->enabled = enabled && on_a_terminal();
}

ProgressDisplay::~ProgressDisplay() {
  if (impl_->drawn) print("\n");
}

void ProgressDisplay::update(const StepMetrics& metrics) {
  if (!impl_->enabled) return;
  std::optional<double>& average = impl_->average_step_s;
  // The first step of a process warms everything up and says little about the others.
  if (metrics.step > impl_->first_step + 1) {
    average = average ? *average + kAverageWeight * (metrics.step_time_s - *average)
                      : metrics.step_time_s;
  }
  const Clock::time_point now = Clock::now();
  const bool finished = metrics.step >= impl_->max_steps;
  if (!finished && impl_->last_draw && now - *impl_->last_draw < kRedrawInterval) return;
  const double eta_s = average.value_or(metrics.step_time_s) *
                       static_cast<double>(std::max<int64_t>(0, impl_->max_steps - metrics.step));
  print(cat(kEraseLine, progress_line(metrics, impl_->max_steps, eta_s, terminal_width())));
  impl_->drawn = true;
  impl_->last_draw = now;
}

void ProgressDisplay::clear() {
  if (!impl_->drawn) return;
  print(kEraseLine);
  impl_->drawn = false;
  impl_->last_draw.reset();  // the log line took its place: draw again at the next step
}

}  // namespace tptrain::metrics
