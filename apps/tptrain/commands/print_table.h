// Tables of the tools' output.
#pragma once

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

namespace tptrain::apps {

using Line = std::vector<std::string>;

/// Left-aligned columns, two spaces apart. All lines have as many cells as the first.
inline void print_table(const std::vector<Line>& lines, std::ostream& out) {
  std::vector<size_t> widths(lines.at(0).size());
  for (const Line& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const Line& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      text += line[i] + std::string(widths[i] - line[i].size() + 2, ' ');
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << text << "\n";
  }
}

}  // namespace tptrain::apps
