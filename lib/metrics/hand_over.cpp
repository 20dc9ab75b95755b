#include "metrics/hand_over.h"

#include <system_error>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace tptrain::metrics {

namespace fs = std::filesystem;

namespace {

fs::path kept_file(const fs::path& run_dir, const std::string& run, int copy) {
  const std::string name = run.empty() ? "earlier" : run.substr(0, 8);
  return run_dir / cat("metrics-", name, copy > 1 ? cat(".", copy) : "", ".jsonl");
}

fs::path keep(const fs::path& file, const fs::path& run_dir, const std::string& run) {
  int copy = 1;
  while (is_taken(kept_file(run_dir, run, copy))) ++copy;  // nothing is overwritten
  const fs::path kept = kept_file(run_dir, run, copy);
  std::error_code error;
  if (!fs::is_symlink(file, error)) {
    rename_durably(file, kept, FailAs::data_error);
    return kept;
  }
  write_file_atomically(kept, read_file(file), FailAs::data_error);
  fs::resize_file(file, 0, error);
  if (error)
    throw DataError(problem(cat("cannot be emptied: ", error.message())).at(file.string()));
  return kept;
}

}  // namespace

void hand_over_metrics(const fs::path& run_dir, const MetricsOwners& owners) {
  if (owners.before == owners.now) return;
  const fs::path file = run_dir / "metrics.jsonl";
  fs::path source = kept_file(run_dir, owners.from, 1);
  for (int copy = 2; is_taken(kept_file(run_dir, owners.from, copy)); ++copy)
    source = kept_file(run_dir, owners.from, copy);  // the newest has most lines
  if (is_filled_file(file)) {                        // also at the end of a link, which stays
    const fs::path kept = keep(file, run_dir, owners.before);
    if (owners.from == owners.before) source = kept;
  }
  if (owners.from.empty() || !is_taken(source)) return;
  write_file_atomically(file, read_file(source), FailAs::data_error);
}

}  // namespace tptrain::metrics
