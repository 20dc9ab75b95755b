#include "adapters/adapter_run.h"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/huggingface_files.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/manifest.h"
#include "model/adapter.h"
#include "model/families/family.h"

namespace tptrain::adapters {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWhereItMayBe =
    "Put the base model back, or name where it lies now with --base.";

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// The lines of either that the other has not.
std::vector<std::string> differences(const std::string& before, const std::string& now) {
  std::vector<std::string> different;
  const std::vector<std::string> old_lines = lines_of(before);
  const std::vector<std::string> new_lines = lines_of(now);
  const auto lacks = [](const std::vector<std::string>& lines, const std::string& line) {
    return std::find(lines.begin(), lines.end(), line) == lines.end();
  };
  for (const std::string& line : old_lines) {
    if (lacks(new_lines, line)) different.push_back("was: " + checkpoint::one_line(line));
  }
  for (const std::string& line : new_lines) {
    if (lacks(old_lines, line)) different.push_back("is:  " + line);
  }
  return different;
}

}  // namespace

std::optional<config::AdapterConfig> adapter_of(const checkpoint::TrainState& state) {
  const auto found = state.extra.find(kAdapterExtra);
  if (found == state.extra.end()) return std::nullopt;
  return model::adapter_from_json(found->second, "the checkpoint's manifest");
}

std::unique_ptr<sharding::TensorSource> open_base(const checkpoint::CheckpointInfo& info,
                                                  const model::DecoderConfig& decoder,
                                                  const std::string& base) {
  const std::string& path = base.empty() ? info.state.base_path : base;
  if (path.empty()) {
    throw CheckpointError(
        problem("the adapter was trained beside random values, which no file holds")
            .at(info.path.string())
            .remedy("Export the adapter alone, or train one beside a model's weights."));
  }
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    throw CheckpointError(
        problem(cat("the base model of the adapter is not here: ", checkpoint::one_line(path)))
            .at(info.path.string())
            .remedy(kWhereItMayBe));
  }
  auto source = std::make_unique<checkpoint::HuggingFaceSource>(path, model::stored_model(decoder));
  const std::string facts = checkpoint::weights_identity(source->files());
  if (sha256_hex(facts) == info.state.base_identity) return source;
  const auto before = info.state.extra.find(kBaseFactsExtra);
  const std::string known = before == info.state.extra.end() ? "" : before->second;
  throw CheckpointError(
      problem(cat("the weights are not those that the adapter of ", info.path.string(),
                  " was trained on"))
          .at(path)
          .remedy(cat(kWhereItMayBe, "\n", checkpoint::capped_list(differences(known, facts)))));
}

}  // namespace tptrain::adapters
