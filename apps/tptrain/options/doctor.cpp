#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_doctor(const std::vector<std::string>& arguments) {
  DoctorCommand command;
  VerbParser parser(
      "doctor",
      "Looks at what a run needs of this host: driver, GPUs, their links, CUDA "
      "libraries, MPI, limits; and, where RUN_DIR is given, at its file system: space, "
      "locks, speed of writing. Starts nothing and leaves nothing behind.\n"
      "Exit code 0: a run can work; 2: something keeps it from that.",
      "  tptrain doctor\n"
      "  tptrain doctor runs/a");
  parser.positional("RUN_DIR", command.run_dir, "A run directory, there already or not");
  if (auto help = parser.parse(arguments)) return *help;
  return command;
}

}  // namespace tptrain::apps
