#include "checkpoint/run_identity.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/hex.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "formats/strict_json.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr const char* kIdentityName = ".run.json";
constexpr int64_t kMaxIdentityBytes = int64_t{1} << 20;
constexpr size_t kMaxOrigins = 1000;

bool is_id(const std::string& text) { return is_hex(text, 32); }

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string())
    throw Refused(cat("run: ", key, " is missing or no text"));
  return found->get<std::string>();
}

}  // namespace

std::string identity_text(const RunIdentity& run) {
  const Json json = {{"id", run.id},
                     {"begun_by", run.begun_by ? config::word(*run.begun_by) : ""},
                     {"origins", run.origins},
                     {"origin_path", run.origin_path}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

RunIdentity parse_identity(std::string_view text) {
  Json json;
  try {
    json = formats::parse_strict_json(text, "run", /*max_depth=*/3);
  } catch (const Error& e) {
    throw Refused(plain_message(e));
  }
  if (!json.is_object()) throw Refused("run is no object");
  RunIdentity run{.id = text_of(json, "id"),
                  .begun_by = config::meaning<config::Resume>(text_of(json, "begun_by"))};
  run.origin_path = text_of(json, "origin_path");
  const auto origins = json.find("origins");
  if (origins == json.end() || !origins->is_array() || origins->size() > kMaxOrigins)
    throw Refused("run: origins is missing or no list");
  for (const Json& origin : *origins) {
    if (!origin.is_string() || !is_id(origin.get<std::string>()))
      throw Refused("run: an origin is not 32 hex digits");
    run.origins.push_back(origin.get<std::string>());
  }
  if (!is_id(run.id) || !run.begun_by)
    throw Refused("run: id or begun_by is not what a run writes");
  return run;
}

std::optional<RunIdentity> read_run_identity(const fs::path& run_dir) {
  const fs::path path = run_dir / kIdentityName;
  std::error_code error;
  if (!fs::exists(path, error) && !error) return std::nullopt;
  const std::string text = read_file(path, kMaxIdentityBytes, FailAs::checkpoint_error);
  try {
    return parse_identity(text);
  } catch (const Refused& e) {
    throw CheckpointError(
        problem(e.what())
            .at(path.string())
            .must("say which run metrics.jsonl is of, as tptrain wrote it")
            .remedy("Something changed the file: remove it and the run takes metrics.jsonl for its "
                    "own."));
  }
}

void write_run_identity(const fs::path& run_dir, const RunIdentity& run) {
  if (run.id.empty()) return;  // of a checkpoint without one: nothing to tell
  write_file_atomically(run_dir / kIdentityName, identity_text(run) + "\n");
}

}  // namespace tptrain::checkpoint
