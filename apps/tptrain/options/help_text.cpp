#include "options/help_text.h"

#include <sstream>

namespace tptrain::apps {
namespace {

constexpr size_t kColumns = 80;

// Where the description of "  --config FILE       The run file" begins; 0 for any other line.
size_t description_column(const std::string& line) {
  if (!line.starts_with("  ") || line.size() < 3 || line[2] == ' ') return 0;
  const size_t gap = line.find("  ", 2);
  return gap == std::string::npos ? 0 : line.find_first_not_of(' ', gap);
}

// Breaks at spaces; what follows a break begins with `indent`, what is broken ends with `mark`.
std::string broken(std::string line, const std::string& indent, const std::string& mark,
                   const std::string& break_before) {
  std::string out;
  while (line.size() > kColumns) {
    const size_t at = line.rfind(break_before, kColumns - mark.size());
    if (at == std::string::npos || at <= indent.size()) break;  // one long word
    out += line.substr(0, at) + mark + "\n";
    line = indent + line.substr(at + 1);
  }
  return out + line;
}

}  // namespace

std::string within_80_columns(const std::string& help) {
  std::istringstream lines(help);
  std::string out;
  bool in_examples = false;
  for (std::string line; std::getline(lines, line);) {
    in_examples = in_examples ? line.starts_with("  ") : line == "Examples:";
    const std::string indent = in_examples ? "      " : std::string(description_column(line), ' ');
    out += in_examples ? broken(line, indent, " \\", " --") : broken(line, indent, "", " ");
    out += "\n";
  }
  return out;
}

}  // namespace tptrain::apps
