#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {
namespace {

constexpr const char* kRunsDoc =
    "Run directories (run_dir of the run file), or folders of them, as a sweep leaves them";

void require_runs(VerbParser& parser, const std::vector<std::string>& runs) {
  parser.require(!runs.empty(), "RUN_DIR is missing", "name a run directory, or a folder of them");
}

}  // namespace

Command parse_report(const std::vector<std::string>& arguments) {
  ReportCommand command;
  VerbParser parser("report",
                    "Writes one HTML page about one run or several side by side: curves, where the "
                    "time went, checkpoints, starts, settings and their differences. The page "
                    "needs no network and no other file.",
                    "  tptrain report runs/a\n"
                    "  tptrain report runs/a runs/quickstart --out comparison.html");
  parser.positionals("RUN_DIR", command.runs, kRunsDoc);
  parser.option("--out", command.out, "FILE", "The page; one that is there is replaced");
  parser.option("--title", command.title, "TEXT", "Its title; the names of the runs if left out");
  if (auto help = parser.parse(arguments)) return *help;
  require_runs(parser, command.runs);
  parser.finish();
  return command;
}

Command parse_watch(const std::vector<std::string>& arguments) {
  WatchCommand command;
  VerbParser parser("watch",
                    "Shows how far, how good and how fast runs are, with the loss as a small plot, "
                    "live in the terminal until all are done (Ctrl-C ends it). Into a pipe or a "
                    "file it is printed once.",
                    "  tptrain watch runs/a\n"
                    "  tptrain watch runs --once");
  parser.positionals("RUN_DIR", command.runs, kRunsDoc);
  parser.flag("--once", command.once, "Print it once and end");
  parser.option("--every", command.every_s, "SECONDS", "How often it is drawn");
  if (auto help = parser.parse(arguments)) return *help;
  require_runs(parser, command.runs);
  parser.require(command.every_s >= 0.1 && command.every_s <= 3600,
                 cat("--every is ", command.every_s), "be between 0.1 and 3600 seconds");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
