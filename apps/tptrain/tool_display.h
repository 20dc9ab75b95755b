// What a verb that takes its time shows of it: on standard error, so that its results stay alone on
// standard output.
#pragma once

#include <unistd.h>

#include <iostream>
#include <string>

#include "base/terminal_line.h"
#include "base/work_display.h"

namespace tptrain::apps {

class ToolDisplay {
 public:
  ToolDisplay()
      : line_(STDERR_FILENO),
        display_(line_, [](const std::string& text) { std::cerr << text + "\n"; }) {}

 private:
  TerminalLine line_;
  WorkDisplay display_;
};

}  // namespace tptrain::apps
