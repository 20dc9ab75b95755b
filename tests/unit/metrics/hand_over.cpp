// metrics.jsonl changes its run without losing a line.
#include "metrics/hand_over.h"

#include <filesystem>

#include "base/files.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

const std::string kOld(32, 'a');
const std::string kNew(32, 'b');
const std::string kThird(32, 'c');

TEST_CASE("the run that goes on finds its file as it was") {
  const TempDir dir;
  dir.put("metrics.jsonl", "lines");
  metrics::hand_over_metrics(dir.path(), {.before = kOld, .now = kOld, .from = kOld});
  CHECK(read_file(dir / "metrics.jsonl") == "lines");
  CHECK_FALSE(fs::exists(dir / "metrics-aaaaaaaa.jsonl"));
}

TEST_CASE("a branch begins with a copy, another run with nothing, and both leave the file kept") {
  const TempDir dir;
  dir.put("metrics.jsonl", "old");
  metrics::hand_over_metrics(dir.path(), {.before = kOld, .now = kNew, .from = kOld});
  CHECK(read_file(dir / "metrics.jsonl") == "old");
  CHECK(read_file(dir / "metrics-aaaaaaaa.jsonl") == "old");

  dir.put("metrics.jsonl", "branch");
  metrics::hand_over_metrics(dir.path(), {.before = kNew, .now = kThird, .from = ""});
  CHECK_FALSE(fs::exists(dir / "metrics.jsonl"));
  CHECK(read_file(dir / "metrics-bbbbbbbb.jsonl") == "branch");

  // Back to the old run's checkpoint: its lines, from where they are kept.
  dir.put("metrics.jsonl", "third");
  metrics::hand_over_metrics(dir.path(), {.before = kThird, .now = kNew, .from = kOld});
  CHECK(read_file(dir / "metrics.jsonl") == "old");
  CHECK(read_file(dir / "metrics-cccccccc.jsonl") == "third");

  // A name that is taken is not overwritten.
  metrics::hand_over_metrics(dir.path(), {.before = kThird, .now = kNew, .from = ""});
  CHECK(read_file(dir / "metrics-cccccccc.2.jsonl") == "old");
}

TEST_CASE("a link stays, and so does what holds no line") {
  const TempDir dir;
  dir.put("elsewhere.jsonl", "old");
  fs::create_symlink(dir / "elsewhere.jsonl", dir / "metrics.jsonl");
  metrics::hand_over_metrics(dir.path(), {.before = kOld, .now = kNew, .from = ""});
  CHECK(fs::is_symlink(dir / "metrics.jsonl"));
  CHECK(read_file(dir / "metrics.jsonl").empty());
  CHECK(read_file(dir / "metrics-aaaaaaaa.jsonl") == "old");
  metrics::hand_over_metrics(dir.path(), {.before = kNew, .now = kThird, .from = ""});
  CHECK_FALSE(fs::exists(dir / "metrics-bbbbbbbb.jsonl"));
}

TEST_CASE("a file of before runs had names is kept too") {
  const TempDir dir;
  dir.put("metrics.jsonl", "earlier");
  metrics::hand_over_metrics(dir.path(), {.before = "", .now = kNew, .from = ""});
  CHECK(read_file(dir / "metrics-earlier.jsonl") == "earlier");
  CHECK_FALSE(fs::exists(dir / "metrics.jsonl"));
}

}  // namespace
}  // namespace tptrain::testing
