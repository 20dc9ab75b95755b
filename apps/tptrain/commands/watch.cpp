// tptrain watch: runs as a view that is drawn again and again. It is drawn over itself, so that
// what was shown last stays on the terminal however the watching ends.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <thread>

#include "base/terminal_colour.h"
#include "base/text.h"
#include "commands/commands.h"
#include "report/find_runs.h"
#include "report/run_record.h"
#include "report/summary.h"
#include "report/watch_view.h"

namespace tptrain::apps {
namespace {

struct Size {
  int columns = 80;
  int lines = 24;
};

Size terminal_size() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
    return {};
  return {size.ws_col, size.ws_row};
}

/// By the locale's name, as the C library would read it.
bool shows_unicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string locale = value;
    return locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  }
  return false;
}

std::string view_of(const std::vector<report::LiveRun>& runs, Size size, bool colour) {
  std::vector<const report::RunRecord*> records;
  for (const report::LiveRun& run : runs) records.push_back(&run.record());
  return report::watch_view(records, {.width = size.columns - 1,
                                      .height = size.lines - 1,
                                      .now = static_cast<double>(std::time(nullptr)),
                                      .colour = colour,
                                      .unicode = shows_unicode()});
}

bool all_done(const std::vector<report::LiveRun>& runs) {
  return std::all_of(runs.begin(), runs.end(), [](const report::LiveRun& run) {
    return report::summary_of(run.record()).state == "done";
  });
}

/// The view over the `before` lines of the one before it; what is left of those goes.
std::string over(const std::string& view, int64_t before) {
  std::string out = before > 0 ? cat("\x1b[", before, "A\r") : "";
  for (const char c : view) {
    if (c == '\n') out += "\x1b[K";
    out += c;
  }
  return out + "\x1b[J";
}

}  // namespace

int run_watch(const WatchCommand& command) {
  std::vector<report::LiveRun> runs;
  for (const report::FoundRun& found : report::find_runs(command.runs))
    runs.emplace_back(found.path, found.name);
  const bool live = !command.once && ::isatty(STDOUT_FILENO) == 1;
  const bool colour = wants_colour(STDOUT_FILENO);
  constexpr int kNoLimit = 1 << 20;  // a file may have as many lines as there are runs
  for (int64_t before = 0;;) {
    for (report::LiveRun& run : runs) run.refresh();
    const Size size = live ? terminal_size() : Size{terminal_size().columns, kNoLimit};
    const std::string view = view_of(runs, size, colour);
    std::cout << (live ? over(view, before) : view) << std::flush;
    if (!live || !std::cout || all_done(runs)) return 0;
    before = std::count(view.begin(), view.end(), '\n');
    std::this_thread::sleep_for(std::chrono::duration<double>(command.every_s));
  }
}

}  // namespace tptrain::apps
