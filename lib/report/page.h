// A report of runs as one HTML page that needs nothing beside itself: no network, no other file.
#pragma once

#include <string>
#include <vector>

#include "report/run_record.h"

namespace tptrain::report {

/// `program` and `made` (a time) stand in its head.
struct PageHead {
  std::string title = {};
  std::string program = {};
  std::string made = {};
};
std::string report_page(const PageHead& head, const std::vector<RunRecord>& runs);

/// The numbers of the curves as JSON, a few thousand points a run at most: page/report.js draws
/// them.
std::string page_data(const std::vector<RunRecord>& runs);

}  // namespace tptrain::report
