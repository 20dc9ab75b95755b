#include "checkpoint/lineage.h"

#include <algorithm>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/random_id.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using config::Resume;

namespace {

/// The save id of the checkpoint that PATH names; nothing where no manifest can be read there.
std::string save_id_at(const fs::path& path) {
  try {
    return read_manifest(path).save_id;
  } catch (const Error&) {
    return {};  // judged, and told, by whoever opens it
  } catch (const Refused&) {
    return {};
  }
}

std::string absolute_text(const fs::path& path) {
  std::error_code ignored;  // the current directory is gone: the path as it was given
  const fs::path whole = fs::absolute(path, ignored).lexically_normal();
  const std::string text = whole.empty() ? path.string() : whole.string();
  return text.size() > 1 && text.ends_with('/') ? text.substr(0, text.size() - 1) : text;
}

bool has_origin(const RunIdentity& run, const std::string& save_id) {
  return std::find(run.origins.begin(), run.origins.end(), save_id) != run.origins.end();
}

RunIdentity new_run(Resume begun_by) { return {.id = random_id(), .begun_by = begun_by}; }

/// With the identity that a start before left, where it began in the same way and made no
/// checkpoint: its metrics.jsonl is then this run's.
RunIdentity begun_anew(Resume resume, const Holdings& holdings) {
  const bool again =
      holdings.current && holdings.current->origins.empty() && !holdings.current->id.empty();
  RunIdentity run = new_run(resume);
  if (again) run.id = holdings.current->id;
  return run;
}

Start start_never(const Holdings& holdings) {
  const std::vector<Verdict>& found = holdings.checkpoints;
  if (!found.empty() && found.front().info &&
      found.front().info->state.run.begun_by == Resume::never) {
    const std::string& run = found.front().info->state.run.id;
    Start start{.from = Start::From::run_dir};
    std::copy_if(found.begin(), found.end(), std::back_inserter(start.candidates),
                 [&](const Verdict& v) { return !v.info || v.info->state.run.id == run; });
    return start;
  }
  const bool own_metrics = holdings.current && holdings.current->begun_by == Resume::never;
  if (found.empty() && (own_metrics || !holdings.has_metrics))
    return {.from = Start::From::nothing, .run = begun_anew(Resume::never, holdings)};
  throw ConfigError(
      problem(cat("checkpoint.resume is never, and run_dir ", holdings.run_dir.string(), " holds ",
                  found.empty()
                      ? "metrics.jsonl"
                      : cat(found.size(), found.size() > 1 ? " checkpoints" : " checkpoint"),
                  " of another run"))
          .must("stand beside a run_dir of this run alone")
          .remedy("Set run_dir to another directory for a new run, or checkpoint.resume to auto to "
                  "go on with the one that is there."));
}

Start start_at_path(const std::string& path, const Holdings& holdings) {
  const std::string save_id = save_id_at(path);
  const std::string absolute = absolute_text(path);
  // By its id; where it is gone by now, by the place where it was.
  const auto grew_from_it = [&](const RunIdentity& run) {
    return save_id.empty() ? !run.origins.empty() && run.origin_path == absolute
                           : has_origin(run, save_id);
  };
  const auto grown = std::find_if(holdings.checkpoints.begin(), holdings.checkpoints.end(),
                                  [&](const Verdict& verdict) {
                                    return verdict.info && grew_from_it(verdict.info->state.run);
                                  });
  if (grown != holdings.checkpoints.end()) {
    Start start{.from = Start::From::run_dir};
    std::copy_if(holdings.checkpoints.begin(), holdings.checkpoints.end(),
                 std::back_inserter(start.candidates),
                 [&](const Verdict& v) { return !v.info || grew_from_it(v.info->state.run); });
    return start;
  }
  Start start{.from = Start::From::path, .run = new_run(Resume::path)};
  start.run.origin_path = absolute;
  const bool again = holdings.current && !holdings.current->origins.empty() &&
                     holdings.current->origins.back() == save_id;
  if (again) start.run.id = holdings.current->id;
  return start;
}

}  // namespace

Start choose_start(const config::CheckpointConfig& config, const Holdings& holdings) {
  const Resume how = config.resumes();
  if (how == Resume::never) return start_never(holdings);
  if (how == Resume::path) return start_at_path(config.resume, holdings);
  if (holdings.checkpoints.empty())
    return {.from = Start::From::nothing, .run = begun_anew(how, holdings)};
  return {.from = Start::From::run_dir, .candidates = holdings.checkpoints};
}

}  // namespace tptrain::checkpoint
