// Real Hugging Face directories (TPTRAIN_TEST_DATA: gpt2, qwen2 and llama made with transformers):
// import and export without training gives every tensor byte for byte, whatever the cut.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "checkpoint/huggingface_files.h"
#include "support/catch.h"
#include "support/process.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

void check_same_tensors(const fs::path& a, const fs::path& b) {
  const checkpoint::HuggingFaceFiles left(a);
  const checkpoint::HuggingFaceFiles right(b);
  REQUIRE(left.tensors().size() == right.tensors().size());
  for (const auto& [name, stored] : left.tensors()) {
    INFO(name);
    const auto other = right.tensors().find(name);
    REQUIRE(other != right.tensors().end());
    CHECK(stored.entry->dtype == other->second.entry->dtype);
    CHECK(stored.entry->shape == other->second.entry->shape);
    CHECK(std::ranges::equal(left.files()[stored.file].file.bytes(*stored.entry),
                             right.files()[other->second.file].file.bytes(*other->second.entry)));
  }
}

TEST_CASE("import then export gives the same tensors", "[e2e][data]") {
  const char* data = std::getenv("TPTRAIN_TEST_DATA");
  REQUIRE(data != nullptr);
  const TempDir dir;
  for (const char* name : {"gpt2", "qwen2_tied", "llama_rope3_sharded"}) {
    const fs::path model = fs::path(data) / "golden" / name;
    for (const char* size : {"5GB", "100KB"}) {
      INFO(name << " in files of " << size);
      const fs::path out = dir / (std::string(name) + size);
      const ProcessResult result = run_process({TPTRAIN_BINARY, "export", "--model", model.string(),
                                                "--out", out.string(), "--max-shard-size", size});
      INFO(result.output);
      REQUIRE(result.exit_code == 0);
      check_same_tensors(model, out);
      for (const char* file : {"config.json", "generation_config.json", "tokenizer.json"}) {
        CHECK(contents_of(out / file) == contents_of(model / file));
      }
      CHECK(run_process({TPTRAIN_BINARY, "inspect", out.string()}).exit_code == 0);
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
