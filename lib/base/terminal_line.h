// One line of a terminal that is redrawn in place, and steps aside for lines that stay. What stands
// on it is for its users: a bar of the steps, or of a phase that takes its time.
#pragma once

#include <functional>
#include <mutex>
#include <string_view>

namespace tptrain {

class TerminalLine {
 public:
  /// `descriptor`: STDOUT_FILENO or STDERR_FILENO. Where that is no terminal nothing is ever drawn.
  explicit TerminalLine(int descriptor);
  ~TerminalLine();  // ends the line
  TerminalLine(const TerminalLine&) = delete;
  TerminalLine& operator=(const TerminalLine&) = delete;

  bool on_terminal() const { return on_terminal_; }
  int width() const;  // columns
  bool drawn() const;
  /// In place of what stands there. `text` is to leave the last column free: a full line makes some
  /// terminals wrap.
  void draw(std::string_view text);
  void clear();
  /// Runs `print`, which writes whole lines to the terminal, with this line out of the way. Threads
  /// come one after the other; `print` calls nothing of this object.
  void step_aside(const std::function<void()>& print);

 private:
  void erase();
  void write(std::string_view text) const;

  int descriptor_;
  bool on_terminal_;
  mutable std::mutex mutex_;
  bool drawn_ = false;
};

}  // namespace tptrain
