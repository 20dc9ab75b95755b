// tptrain doctor: what a run needs of this host, looked at before it starts.
#include <unistd.h>

#include <iostream>

#include "base/error.h"
#include "base/printable.h"
#include "base/terminal_colour.h"
#include "base/text.h"
#include "commands/commands.h"
#include "doctor/findings.h"
#include "version.h"

namespace tptrain::apps {
namespace {

std::string grade_text(doctor::Grade grade, bool colour) {
  switch (grade) {
    case doctor::Grade::fine:
      return coloured("ok     ", Colour::green, colour);
    case doctor::Grade::warning:
      return coloured("WARNING", Colour::yellow, colour);
    case doctor::Grade::fault:
      return coloured("FAULT  ", Colour::red, colour);
  }
  return "";
}

}  // namespace

int run_doctor(const DoctorCommand& command) {
  const bool colour = wants_colour(STDOUT_FILENO);
  int faults = 0;
  int warnings = 0;
  std::cout << program_version() << "\n";
  for (const doctor::Finding& finding : doctor::findings(doctor::examine(command.run_dir))) {
    faults += finding.grade == doctor::Grade::fault ? 1 : 0;
    warnings += finding.grade == doctor::Grade::warning ? 1 : 0;
    std::cout << grade_text(finding.grade, colour) << "  " << finding.what << ": "
              << printable(finding.found) << "\n";
    if (!finding.remedy.empty()) std::cout << "           " << printable(finding.remedy) << "\n";
  }
  std::cout << faults << (faults == 1 ? " fault, " : " faults, ") << warnings
            << (warnings == 1 ? " warning" : " warnings") << "\n";
  return static_cast<int>(faults == 0 ? ExitCode::done : ExitCode::config);
}

}  // namespace tptrain::apps
