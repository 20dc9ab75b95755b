// Lines of the table of foreign names (foreign_names.h), and its parts that stand in files of their
// own.
#pragma once

#include <vector>

namespace tptrain::config::foreign {

struct Line {
  std::vector<const char*> names;
  const char* path;  // our key or section, or ""
  const char* note;  // a whole sentence, or ""
};
using Lines = std::vector<Line>;

const Lines& names_of_numbers();
const Lines& names_of_layouts();

}  // namespace tptrain::config::foreign
