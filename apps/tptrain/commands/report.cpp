// tptrain report: run directories -> one HTML page.
#include <ctime>
#include <iostream>

#include "base/files.h"
#include "base/printable.h"
#include "base/text.h"
#include "commands/commands.h"
#include "report/find_runs.h"
#include "report/page.h"
#include "report/summary.h"
#include "version.h"

namespace tptrain::apps {
namespace {

std::string title_of(const std::vector<report::RunRecord>& runs) {
  constexpr size_t kMostNamed = 4;
  std::vector<std::string> names;
  for (size_t i = 0; i < runs.size() && i < kMostNamed; ++i) names.push_back(runs[i].name);
  return cat(join(names),
             runs.size() > kMostNamed ? cat(" and ", runs.size() - kMostNamed, " more") : "");
}

}  // namespace

int run_report(const ReportCommand& command) {
  std::vector<report::RunRecord> runs;
  for (const report::FoundRun& found : report::find_runs(command.runs)) {
    runs.push_back(report::read_run(found.path));
    runs.back().name = found.name;
  }
  const std::string title = command.title.empty() ? title_of(runs) : command.title;
  const std::string page =
      report::report_page({.title = title,
                           .program = program_version(),
                           .made = report::utc_text(static_cast<double>(std::time(nullptr)))},
                          runs);
  write_file_atomically(command.out, page, FailAs::data_error);
  int64_t rows = 0;
  for (const report::RunRecord& run : runs) rows += static_cast<int64_t>(run.metrics.steps.size());
  std::cout << printable_line(command.out) << ": " << runs.size()
            << (runs.size() == 1 ? " run, " : " runs, ") << with_thousands(rows) << " steps, "
            << human_bytes(static_cast<int64_t>(page.size())) << "\n";
  for (const report::RunRecord& run : runs) {
    for (const std::string& text : run.problems)
      std::cerr << "warning: " << run.name << ": " << text << "\n";
  }
  return 0;
}

}  // namespace tptrain::apps
