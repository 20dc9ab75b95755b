// Runs as text for a terminal: how far, how good, how fast, and the loss as a small plot.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/run_record.h"

namespace tptrain::report {

struct ViewOptions {
  int width = 80;   // columns; no line is longer
  int height = 24;  // lines at most
  double now = 0;   // seconds since 1970
  bool colour = false;
  bool unicode = true;  // plots of braille dots; else of asterisks
};
/// Whole lines. A block with a plot a run where all fit, else a line a run; where not even those
/// fit, the last line says how many are missing.
std::string watch_view(const std::vector<const RunRecord*>& runs, const ViewOptions& options);

/// `values`, those above 0 on a logarithmic axis where all are, as `rows` lines of `columns` cells.
std::vector<std::string> plot(std::span<const double> values, int columns, int rows, bool unicode);

/// The first `columns` columns of a text; wide characters take two.
std::string cut(const std::string& text, int columns);

}  // namespace tptrain::report
