// What a run keeps of the model and tokenizer it began with.
#include "checkpoint/model_files.h"

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using testing::TempDir;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("the model's configuration and the tokenizer's files are kept, weights are not") {
  const TempDir temporary;
  temporary.put("model/config.json", "{}");
  temporary.put("model/generation_config.json", "{\"a\": 1}");
  temporary.put("model/model.safetensors", "weights");
  temporary.put("model/tokenizer.json", "the model's own");
  temporary.put("tok/tokenizer.json", "tok");
  temporary.put("tok/chat_template.jinja", "chat");
  temporary.put("tok/notes.txt", "no part of it");
  const fs::path run = temporary / "run";
  keep_model_files(run, (temporary / "model").string(), (temporary / "tok").string(), "");
  const fs::path kept = model_files_of_run(run);
  CHECK(names_in(kept) == std::vector<std::string>{"chat_template.jinja", "config.json",
                                                   "generation_config.json", "tokenizer.json"});
  CHECK(contents_of(kept / "tokenizer.json") == "tok");
  CHECK(contents_of(kept / "generation_config.json") == "{\"a\": 1}");

  // Again: what has changed is replaced, the rest is not written.
  temporary.put("tok/tokenizer.json", "changed");
  const auto before = fs::last_write_time(kept / "config.json") - std::chrono::hours(1);
  fs::last_write_time(kept / "config.json", before);  // not to be mistaken for a write of now
  keep_model_files(run, (temporary / "model").string(), (temporary / "tok").string(), "");
  CHECK(contents_of(kept / "tokenizer.json") == "changed");
  CHECK(fs::last_write_time(kept / "config.json") == before);
}

TEST_CASE("the template that a run trains on stands in the place of the tokenizer's own") {
  const TempDir temporary;
  temporary.put("tok/tokenizer.json", "tok");
  const std::string chosen = temporary.put("mine.j2", "mine").string();
  const std::string tokenizer = (temporary / "tok").string();
  const fs::path run = temporary / "run";
  const fs::path kept = model_files_of_run(run) / "chat_template.jinja";
  keep_model_files(run, "", tokenizer, chosen);
  CHECK(contents_of(kept) == "mine");
  temporary.put("tok/chat_template.jinja", "its own");
  keep_model_files(run, "", tokenizer, chosen);
  CHECK(contents_of(kept) == "mine");
  keep_model_files(run, "", tokenizer, "");
  CHECK(contents_of(kept) == "its own");
  fs::remove(temporary / "tok/chat_template.jinja");
  keep_model_files(run, "", tokenizer, "");
  CHECK_FALSE(fs::exists(kept));
}

TEST_CASE("a run of its own making keeps nothing") {
  const TempDir temporary;
  keep_model_files(temporary / "run", "", "bytes", "");
  CHECK(!fs::exists(temporary / "run"));
}

TEST_CASE("a checkpoint's model files are its run's, however its path is written") {
  const TempDir temporary;
  const fs::path checkpoint = temporary / "run/checkpoints/step-00000003";
  fs::create_directories(checkpoint);
  const fs::path expected = fs::canonical(temporary.path()) / "run/model_files";
  CHECK(model_files_of_checkpoint(checkpoint) == expected);
  CHECK(model_files_of_checkpoint(checkpoint / "..") != expected);
  CHECK(model_files_of_checkpoint(temporary / "run/../run/checkpoints/./step-00000003") ==
        expected);
}

}  // namespace tptrain::checkpoint
