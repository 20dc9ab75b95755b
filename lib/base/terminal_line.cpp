#include "base/terminal_line.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

#include "base/text.h"

namespace tptrain {

namespace {

constexpr int kDefaultWidth = 80;
constexpr std::string_view kEraseLine = "\r\x1b[K";

// Whether a person looks at this output. Open MPI gives its ranks a pseudo-terminal even where
// mpirun itself writes into a pipe or a file, so under mpirun it is the parent's output that
// counts.
bool is_watched(int descriptor) {
  if (::isatty(descriptor) != 1) return false;
  if (::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return true;
  struct stat output {};
  if (::stat(cat("/proc/", ::getppid(), "/fd/", descriptor).c_str(), &output) != 0 ||
      !S_ISCHR(output.st_mode))
    return false;
  constexpr unsigned kFirstPtyMajor = 136, kLastPtyMajor = 143,
                     kTtyMajor = 4;  // Linux, Documentation/admin-guide/devices.txt
  const unsigned major = gnu_dev_major(output.st_rdev);
  return major == kTtyMajor || (major >= kFirstPtyMajor && major <= kLastPtyMajor);
}

}  // namespace

TerminalLine::TerminalLine(int descriptor)
    : descriptor_(descriptor), on_terminal_(is_watched(descriptor)) {}

TerminalLine::~TerminalLine() {
  if (drawn_) write("\n");
}

int TerminalLine::width() const {
  winsize size{};
  if (::ioctl(descriptor_, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultWidth;
  return size.ws_col;
}

bool TerminalLine::drawn() const {
  const std::lock_guard lock(mutex_);
  return drawn_;
}

void TerminalLine::draw(std::string_view text) {
  if (!on_terminal_) return;
  const std::lock_guard lock(mutex_);
  write(cat(kEraseLine, text));
  drawn_ = true;
}

void TerminalLine::clear() {
  const std::lock_guard lock(mutex_);
  erase();
}

void TerminalLine::step_aside(const std::function<void()>& print) {
  const std::lock_guard lock(mutex_);
  erase();
  print();
}

void TerminalLine::erase() {
  if (!drawn_) return;
  write(kEraseLine);
  drawn_ = false;
}

// A display is an ornament: where the terminal does not take it, the work goes on.
void TerminalLine::write(std::string_view text) const {
  while (!text.empty()) {
    const ssize_t count = ::write(descriptor_, text.data(), text.size());
    if (count < 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

}  // namespace tptrain
