#include "base/work_display.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/text.h"

namespace tptrain {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kUnremarkable{2};
constexpr std::chrono::seconds kBetweenLines{15};
constexpr std::chrono::milliseconds kBetweenLooks{100};
constexpr int kBarCells = 24;

double share_of(const WorkState& work) {
  return std::clamp(static_cast<double>(work.done) / static_cast<double>(work.total), 0.0, 1.0);
}

double seconds_since(WorkLines::Time begin, WorkLines::Time now) {
  return std::chrono::duration<double>(now - begin).count();
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

std::string bar_text(double fraction) {
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kBarCells);
  std::string cells(static_cast<size_t>(filled), '=');
  if (filled < kBarCells) cells += '>';
  cells.resize(kBarCells, ' ');
  return cat("[", cells, "] ");
}

std::string work_text(const WorkState& work, double elapsed_s) {
  if (work.unit == WorkUnit::none || work.total <= 0)
    return cat(work.what, ": ", duration_text(elapsed_s), " so far");
  const bool bytes = work.unit == WorkUnit::bytes;
  const auto amount = [&](int64_t value) {
    return bytes ? human_bytes(value) : with_thousands(value);
  };
  std::string text = cat(work.what, ": ", amount(std::min(work.done, work.total)), " of ",
                         amount(work.total), " (", std::llround(100 * share_of(work)), " %)");
  if (work.done <= 0 || elapsed_s <= 0) return text;
  const double rate = static_cast<double>(work.done) / elapsed_s;
  const int digits = rate < 1 ? 2 : rate < 10 ? 1 : 0;
  text += cat(", ", bytes ? human_bytes(std::llround(rate)) : fixed(rate, digits), "/s");
  const auto left = static_cast<double>(std::max<int64_t>(0, work.total - work.done));
  return text + cat(", ETA ", duration_text(left / rate));
}

bool WorkLines::due(const WorkState& work, Time now) {
  if (work.number != number_) {
    number_ = work.number;
    last_.reset();
  }
  if (last_ ? now - *last_ < kBetweenLines : now - work.begun < kUnremarkable) return false;
  last_ = now;
  return true;
}

WorkDisplay::WorkDisplay(TerminalLine& line, Say say, Say note)
    : line_(line), say_(std::move(say)), note_(std::move(note)), thread_([this] { watch(); }) {
  // At once: what follows the work may print to the same terminal.
  observe_end_of_work([this] {
    const std::lock_guard lock(mutex_);
    hide();
  });
}

WorkDisplay::~WorkDisplay() {
  observe_end_of_work({});
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
    hide();
  }
  wake_.notify_all();
  thread_.join();
}

void WorkDisplay::watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kBetweenLooks, [this] { return done_; })) {
    const std::optional<WorkState> work = current_work();
    if (work && Clock::now() - work->begun >= kUnremarkable) show(*work);
  }
}

void WorkDisplay::hide() {
  if (std::exchange(shown_, false)) line_.clear();
}

void WorkDisplay::show(const WorkState& work) {
  const Clock::time_point now = Clock::now();
  const std::string text = work_text(work, seconds_since(work.begun, now));
  const Say& tell = line_.on_terminal() ? note_ : say_;
  if (tell && lines_.due(work, now)) tell(text);
  if (!line_.on_terminal()) return;
  const std::string bar = work.total > 0 ? bar_text(share_of(work)) : "";
  const auto room = static_cast<size_t>(std::max(0, line_.width() - 1));
  shown_ = true;
  line_.draw(bar.size() + text.size() <= room ? bar + text : text.substr(0, room));
}

}  // namespace tptrain
