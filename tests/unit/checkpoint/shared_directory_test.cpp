// run_dir must be one directory for all ranks, and writable.
#include "checkpoint/shared_directory.h"

#include <filesystem>
#include <string>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a shared directory is made where it is missing and left empty") {
  const TempDir dir;
  run_ranks(3, [&](comm::ControlGroup& group) {
    checkpoint::check_shared_directory(group, dir / "runs" / "a");
  });
  CHECK(fs::is_empty(dir / "runs" / "a"));
}

TEST_CASE("a directory that a rank sees otherwise is refused on every rank, naming the rank") {
  const TempDir dir;
  fs::create_directory(dir / "rank 1");
  const auto thrown = ThreadGroup(2).run([&](comm::ControlGroup& group) {
    const fs::path mine = dir / (group.rank() == 0 ? "rank 0" : "rank 1");
    checkpoint::check_shared_directory(group, mine, {.patience = std::chrono::milliseconds(10)});
  });
  for (const std::exception_ptr& exception : thrown) {
    REQUIRE(exception);
    const std::string message = message_of<Error>([&] { std::rethrow_exception(exception); });
    CHECK(has(message, "config error: [rank 1] run_dir"));
    CHECK(has(message, "is not on a file system shared by all hosts"));
    CHECK(has(message, "Set run_dir to a directory that every host mounts"));
  }
  CHECK(fs::is_empty(dir / "rank 0"));
}

TEST_CASE("a run_dir that cannot be written is named with the system's reason") {
  const TempDir dir;
  const fs::path file = dir.put("file", "in the way");
  comm::SingleRank group;
  const std::string message =
      message_of<Error>([&] { checkpoint::check_shared_directory(group, file / "run"); });
  CHECK(has(message, "config error: run_dir " + (file / "run").string() + " cannot be written"));
  CHECK(has(message, "Not a directory"));
}

}  // namespace
}  // namespace tptrain::testing
