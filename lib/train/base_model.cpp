#include "train/base_model.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "model/families/family.h"
#include "train/host_agreement.h"

namespace tptrain::train {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// "  then: model.safetensors, 12 bytes ..." for each line that one of the two lacks.
std::string differing_lines(const std::string& before, const std::string& now) {
  const std::vector<std::string> was = lines_of(before), is = lines_of(now);
  std::vector<std::string> out;
  const auto add = [&](const char* when, const std::vector<std::string>& of,
                       const std::vector<std::string>& other) {
    constexpr size_t kMost = 6;
    for (const std::string& line : of) {
      if (out.size() < 2 * kMost && std::ranges::count(other, line) == 0)
        out.push_back(cat("  ", when, ": ", checkpoint::one_line(line)));
    }
  };
  add("then", was, is);
  add("now ", is, was);
  return join(out, "\n");
}

}  // namespace

BaseModel open_base(comm::MpiSession& session, const ResolvedConfig& resolved,
                    const UntilStopped& until_stopped) {
  const config::RunConfig& run = resolved.run;
  BaseModel base;
  if (run.model.init == config::Init::random) {
    base.facts = cat("random values from seed ", run.train.seed, "\n");
    return base;
  }
  until_stopped(
      [&] { base.weights.emplace(run.model.path, model::stored_model(resolved.decoder)); });
  until_stopped([&] { base.facts = checkpoint::weights_identity(base.weights->files()); });
  agree_on_facts(session, {{.name = cat("the weights of ", run.model.path),
                            .value = base.facts,
                            .remedy = "Put the same copy of model.path on every host."}});
  return base;
}

void check_same_base(const checkpoint::CheckpointInfo& from, const BaseModel& base,
                     const std::string& path) {
  const auto found = from.state.extra.find(kBaseFactsExtra);
  const std::string before = found == from.state.extra.end() ? "" : found->second;
  if (before == base.facts) return;
  throw CheckpointError(
      problem(cat("the adapter was trained beside another base model (",
                  checkpoint::one_line(from.state.base_path.empty() ? std::string("drawn values")
                                                                    : from.state.base_path),
                  " then, ", path.empty() ? std::string("drawn values") : path, " now):\n",
                  differing_lines(before, base.facts), "\n "))
          .at(from.path.string())
          .must("go on beside the same weights")
          .remedy("Where the base lies now is for --set model.path=DIR to say; a base that has "
                  "changed takes a new adapter, in another run_dir."));
}

}  // namespace tptrain::train
