#include "checkpoint/named_checkpoints.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "formats/strict_json.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using Evaluation = BestEvaluations::Evaluation;

namespace {

constexpr const char* kBestName = "best.json";
constexpr int64_t kMaxBestBytes = 1 << 16;
// So many saves in a row that fail are no matter of the best.
constexpr size_t kMostEvaluations = 16;

BestEvaluations parsed(const nlohmann::json& json) {
  BestEvaluations best{.run = json.at("run").get<std::string>(), .evaluations = {}};
  for (const nlohmann::json& one : json.at("evaluations")) {
    best.evaluations.push_back(
        {.step = one.at("step").get<int64_t>(), .loss = one.at("eval_loss").get<double>()});
  }
  return best;
}

}  // namespace

std::optional<BestEvaluations> read_best(const fs::path& checkpoints_dir) {
  const fs::path path = checkpoints_dir / kBestName;
  std::error_code error;
  if (!fs::exists(path, error) && !error) return std::nullopt;
  const std::string text = read_file(path, kMaxBestBytes, FailAs::checkpoint_error);
  try {
    return parsed(formats::parse_strict_json(text, path.string()));
  } catch (const DataError&) {
  } catch (const nlohmann::json::exception&) {
  }
  throw CheckpointError(problem("this is not what a run writes there")
                            .at(path.string())
                            .must("hold a run and the steps and losses of its best evaluations")
                            .remedy("Remove it: the next best evaluation writes it anew."));
}

void add_best(const fs::path& checkpoints_dir, const std::string& run, const Evaluation& now) {
  BestEvaluations best{.run = run, .evaluations = {}};
  try {
    const std::optional<BestEvaluations> before = read_best(checkpoints_dir);
    if (before && before->run == run) best = *before;
  } catch (const CheckpointError&) {
    // What cannot be read is written anew.
  }
  // A run that went back does its evaluations again: those that are no better go.
  std::erase_if(best.evaluations, [&](const Evaluation& one) {
    return one.step == now.step || one.loss <= now.loss;
  });
  best.evaluations.push_back(now);
  if (best.evaluations.size() > kMostEvaluations) best.evaluations.erase(best.evaluations.begin());
  nlohmann::ordered_json json = {{"run", best.run}, {"evaluations", nlohmann::json::array()}};
  for (const Evaluation& one : best.evaluations)
    json["evaluations"].push_back({{"step", one.step}, {"eval_loss", one.loss}});
  write_file_atomically(checkpoints_dir / kBestName, json.dump() + "\n");
}

std::optional<Best> find_best(const std::vector<Verdict>& newest_first,
                              const BestEvaluations& evaluations) {
  for (auto one = evaluations.evaluations.rbegin(); one != evaluations.evaluations.rend(); ++one) {
    const auto found =
        std::find_if(newest_first.begin(), newest_first.end(), [&](const Verdict& verdict) {
          return verdict.info && verdict.problem.empty() &&
                 verdict.info->state.run.id == evaluations.run &&
                 verdict.info->state.step == one->step;
        });
    if (found != newest_first.end()) return Best{.path = found->path, .evaluation = *one};
  }
  return std::nullopt;
}

std::optional<NamedPath> as_named_path(const fs::path& path) {
  const std::string name = path.filename().string();
  std::error_code error;
  if ((name != "best" && name != "last") || fs::exists(path, error)) return std::nullopt;
  return NamedPath{.name = name, .of = path.has_parent_path() ? path.parent_path() : fs::path(".")};
}

}  // namespace tptrain::checkpoint
