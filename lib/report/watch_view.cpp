#include "report/watch_view.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/terminal_colour.h"
#include "base/text.h"
#include "base/utf8.h"
#include "base/work_display.h"
#include "report/condense.h"
#include "report/summary.h"

namespace tptrain::report {
namespace {

constexpr int kPlotRows = 5;
constexpr int kBlockLines = kPlotRows + 4;  // head, numbers, plot, checkpoint, an empty line

int columns_of_character(std::string_view character) {
  return character.size() >= 3 && static_cast<unsigned char>(character[0]) != 0xE2 ? 2 : 1;
}

int columns_of(const std::string& text) {
  int columns = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t length = std::max<size_t>(1, utf8_length(rest));
    columns += columns_of_character(rest.substr(0, length));
    rest.remove_prefix(length);
  }
  return columns;
}

std::string padded(const std::string& text, int columns) {
  const std::string shorter = cut(text, columns);
  return shorter +
         std::string(static_cast<size_t>(std::max(0, columns - columns_of(shorter))), ' ');
}

/// Dots of a plot, two by four in a cell of braille.
class Dots {
 public:
  Dots(int columns, int rows) : columns_(columns), bits_(cell(0, rows), 0) {}
  void set(int x, int y) {
    constexpr std::array<std::array<int, 2>, 4> kBit = {{{0, 3}, {1, 4}, {2, 5}, {6, 7}}};
    bits_[cell(x / 2, y / 4)] |= static_cast<unsigned char>(
        1 << kBit[static_cast<size_t>(y % 4)][static_cast<size_t>(x % 2)]);
  }
  std::string row(int row, bool unicode) const {
    std::string text;
    for (int x = 0; x < columns_; ++x) {
      const unsigned bits = bits_[cell(x, row)];
      if (!unicode || bits == 0) {
        text += bits == 0 ? ' ' : '*';
        continue;
      }
      append_utf8(text, 0x2800 + bits);
    }
    return text;
  }

 private:
  size_t cell(int column, int row) const {
    return static_cast<size_t>(row) * static_cast<size_t>(columns_) + static_cast<size_t>(column);
  }

  int columns_;
  std::vector<unsigned char> bits_;
};

/// When the numbers of an evaluation came last; 0 where there are none.
double last_evaluation(const RunRecord& run) {
  double last = 0;
  for (const auto& [set, rows] : run.metrics.evaluations) {
    if (!rows.empty() && rows.last("time") > last) last = rows.last("time");
  }
  return last;
}

struct State {
  std::string text;
  Colour colour = Colour::green;
};

// A run says nothing when it is killed: what tells is that its numbers stop, and the lines of the
// log that long work writes every fifteen seconds.
State state_of(const RunRecord& run, const Summary& summary, double now) {
  if (summary.state == "done") return {"done", Colour::green};
  if (summary.state == "stopped") return {"stopped", Colour::yellow};
  if (summary.state == "failed") return {"failed", Colour::red};
  constexpr double kBetweenLines = 60;  // four of them: a log on a far disk comes late
  if (!run.log.work.empty() && now - run.log_time <= kBetweenLines)
    return {run.log.work, Colour::green};
  if (run.metrics.steps.empty()) return {"no step yet", Colour::yellow};
  const double silent = now - std::max(run.metrics.steps.last("time"), last_evaluation(run));
  const double patience = std::max(60.0, 20 * recent(run.metrics.steps, "step_time_s"));
  if (silent > patience) return {cat("silent for ", duration_text(silent)), Colour::red};
  return {"running", Colour::green};
}

std::string eta_of(const RunRecord& run, const State& state) {
  const double left = seconds_left(run);
  return state.text != "running" || !std::isfinite(left) ? "" : cat("ETA ", duration_text(left));
}

std::span<const double> losses_of(const RunRecord& run) {
  const std::vector<double>* losses = run.metrics.steps.find("loss");
  return losses == nullptr ? std::span<const double>() : std::span<const double>(*losses);
}

std::string last_save(const RunRecord& run, double now) {
  if (run.checkpoints.empty()) return "none";
  const StoredCheckpoint& last = run.checkpoints.back();
  return cat(last.name, ", ", duration_text(now - last.time), " ago");
}

/// "a  b" of what is not empty, as many as fit into `columns`.
std::string parts(const std::vector<std::string>& texts, int columns) {
  std::string out;
  for (const std::string& text : texts) {
    if (text.empty()) continue;
    const std::string longer = cat(out, out.empty() ? "" : "  ", text);
    if (columns_of(longer) > columns) break;
    out = longer;
  }
  return out;
}

std::string named(const char* name, const std::string& value) {
  return value.empty() ? "" : cat(name, value);
}

/// "wiki 70 %, 0.52 epochs; chat 30 %, 1.31 epochs"
std::string sources_text(const RunRecord& run) {
  const std::vector<SourceUse> sources = sources_of(run);
  double all = 0;
  for (const SourceUse& source : sources) all += source.sequences;
  std::vector<std::string> texts;
  for (const SourceUse& source : sources)
    texts.push_back(cat(source.name, " ", fixed(100 * source.sequences / std::max(1.0, all), 0),
                        " %, ", fixed(source.epoch, 2), " epochs"));
  return join(texts, "; ");
}

std::vector<std::string> block(const RunRecord& run, const ViewOptions& options) {
  const Summary s = summary_of(run);
  const State state = state_of(run, s, options.now);
  std::vector<std::string> lines;
  const std::string name = cut(run.name, options.width / 2);
  const std::string begin =
      name.empty() ? "" : cat(coloured(name, Colour::bold, options.colour), "  ");
  int room = options.width - (name.empty() ? 0 : columns_of(name) + 2);
  const std::string state_text = cut(state.text, room);
  room -= columns_of(state_text) + 2;
  const std::string rest = parts({named("step ", s.step), eta_of(run, state)}, room);
  lines.push_back(cat(begin, coloured(state_text, state.colour, options.colour),
                      rest.empty() ? "" : "  ", rest));
  const std::string numbers =
      parts({named("loss ", s.loss), named("best held out ", s.best_eval),
             s.tokens_per_second.empty() ? "" : cat(s.tokens_per_second, " tokens/s"),
             named("mfu ", s.mfu), named("peak ", s.peak_memory)},
            options.width);
  if (!numbers.empty()) lines.push_back(numbers);
  std::vector<std::string> dots;
  if (!losses_of(run).empty())
    dots = plot(losses_of(run), options.width, kPlotRows, options.unicode);
  for (const std::string& row : dots) lines.push_back(coloured(row, Colour::cyan, options.colour));
  if (const std::string sources = sources_text(run); !sources.empty())
    lines.push_back(cut(cat("sources: ", sources), options.width));
  lines.push_back(cut(cat("checkpoint: ", last_save(run, options.now)), options.width));
  if (state.text == "failed")
    lines.push_back(cut(cat("! ", run.log.starts.back().end), options.width));
  for (const std::string& text : run.problems) lines.push_back(cut(cat("! ", text), options.width));
  lines.push_back("");
  return lines;
}

std::string one_line(const RunRecord& run, int name_columns, const ViewOptions& options) {
  const Summary s = summary_of(run);
  const State state = state_of(run, s, options.now);
  constexpr int kPlotColumns = 12;
  const std::string dots = plot(losses_of(run), kPlotColumns, 1, options.unicode)[0];
  const std::string rest =
      parts({padded(state.text, 11), padded(named("step ", s.step), 16),
             padded(named("loss ", s.loss), 12), dots,
             s.tokens_per_second.empty() ? "" : cat(s.tokens_per_second, " tokens/s"),
             eta_of(run, state), s.last_checkpoint},
            options.width - name_columns - 2);
  return cut(cat(padded(run.name, name_columns), "  ", rest), options.width);
}

}  // namespace

std::string cut(const std::string& text, int columns) {
  int taken = 0;
  size_t end = 0;
  while (end < text.size()) {
    const std::string_view rest = std::string_view(text).substr(end);
    const size_t length = std::max<size_t>(1, utf8_length(rest));
    taken += columns_of_character(rest.substr(0, length));
    if (taken > columns) break;
    end += length;
  }
  return text.substr(0, end);
}

std::vector<std::string> plot(std::span<const double> values, int columns, int rows, bool unicode) {
  columns = std::max(columns, 1);
  Dots dots(columns, rows);
  const size_t dots_across = 2 * static_cast<size_t>(columns);
  const Condensed points = condense(values, parts_of(values.size(), dots_across));
  double low = kNoNumber, high = kNoNumber;
  for (const double value : points.mean) {
    low = std::fmin(low, value);
    high = std::fmax(high, value);
  }
  const bool logarithmic = low > 0;
  const auto height = [&](double value) { return logarithmic ? std::log(value) : value; };
  const int most = 4 * rows - 1;
  int before = -1;
  for (size_t i = 0; i < points.mean.size(); ++i) {
    if (!std::isfinite(points.mean[i])) continue;
    const double share =
        high > low ? (height(high) - height(points.mean[i])) / (height(high) - height(low)) : 0.5;
    const int y = static_cast<int>(std::lround(share * most));
    // Few points are spread over the whole width, each as a step.
    const auto size = points.mean.size();
    const bool is_full = size >= dots_across;
    const int x = static_cast<int>(is_full ? i : i * dots_across / size);
    const int x_end = static_cast<int>(is_full ? i + 1 : (i + 1) * dots_across / size);
    for (int at = std::min(y, before < 0 ? y : before); at <= std::max(y, before); ++at)
      dots.set(x, at);
    for (int at = x; at < x_end; ++at) dots.set(at, y);
    before = y;
  }
  std::vector<std::string> lines;
  for (int row = 0; row < rows; ++row) lines.push_back(dots.row(row, unicode));
  return lines;
}

std::string watch_view(const std::vector<const RunRecord*>& runs, const ViewOptions& options) {
  std::vector<std::string> lines;
  const int count = static_cast<int>(runs.size());
  constexpr int kMostBlocks = 6;  // beyond that a line a run is easier to compare
  int needed = -1;                // the empty line behind the last block
  for (const RunRecord* run : runs) needed += kBlockLines + (sources_of(*run).empty() ? 0 : 1);
  if (count <= kMostBlocks && needed <= options.height) {
    for (const RunRecord* run : runs) {
      for (std::string& line : block(*run, options)) lines.push_back(std::move(line));
    }
    lines.pop_back();  // the empty one behind the last block
    if (lines.size() > static_cast<size_t>(options.height))
      lines.resize(static_cast<size_t>(options.height));
  } else {
    int name_columns = 4;
    for (const RunRecord* run : runs)
      name_columns = std::max(name_columns, std::min(30, columns_of(run->name)));
    const int shown = count <= options.height ? count : std::max(0, options.height - 1);
    for (int i = 0; i < shown; ++i)
      lines.push_back(one_line(*runs[static_cast<size_t>(i)], name_columns, options));
    if (shown < count) lines.push_back(cut(cat("and ", count - shown, " more"), options.width));
  }
  return join(lines, "\n") + "\n";
}

}  // namespace tptrain::report
