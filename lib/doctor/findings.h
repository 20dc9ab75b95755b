// What the facts of a host mean for a run: what is right, what is not, what to do.
#pragma once

#include <string>
#include <vector>

#include "doctor/facts.h"

namespace tptrain::doctor {

/// fault: a run fails. warning: it is slower, or may fail.
enum class Grade { fine, warning, fault };

struct Finding {
  Grade grade = Grade::fine;
  std::string what;    // "driver"
  std::string found;   // "580.65.06, serves CUDA 13.0"
  std::string remedy;  // "" where all is well
};
std::vector<Finding> findings(const Facts& facts);

}  // namespace tptrain::doctor
