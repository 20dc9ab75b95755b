// The message before every step: counts are summed once a dp rank, a wish to stop reaches
// everybody, and diverging tokens are named.
#include "train/step_exchange.h"

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::train {
namespace {

constexpr comm::MeshShape kMesh{.dp_size = 2, .tp_size = 2};

StepReport report_of(int rank) {
  return {.token_hash = static_cast<uint64_t>(100 + rank / kMesh.tp_size),
          .target_tokens = 10 + rank / kMesh.tp_size,
          .stop_requested = false};
}

std::vector<StepReport> reports() {
  std::vector<StepReport> all;
  for (int rank = 0; rank < 4; ++rank) all.push_back(report_of(rank));
  return all;
}

}  // namespace

TEST_CASE("target tokens count once a dp rank, and one rank's wish to stop is everybody's",
          "[train]") {
  std::vector<StepReport> all = reports();
  CHECK(agree_on_step(all, kMesh, 5).target_tokens == 10 + 11);
  CHECK_FALSE(agree_on_step(all, kMesh, 5).stop_requested);
  all[3].stop_requested = true;
  CHECK(agree_on_step(all, kMesh, 5).stop_requested);
}

TEST_CASE("a save goes on when every rank has done its part, or one has failed", "[train]") {
  std::vector<StepReport> all = reports();
  for (StepReport& report : all) report.save_step_done = true;
  CHECK(agree_on_step(all, kMesh, 5).save_step_done);
  CHECK_FALSE(agree_on_step(all, kMesh, 5).save_failed);
  all[2] = report_of(2);
  CHECK_FALSE(agree_on_step(all, kMesh, 5).save_step_done);
  all[2].save_failed = true;
  CHECK(agree_on_step(all, kMesh, 5).save_failed);
}

TEST_CASE("one rank that could not read its tokens is everybody's failure, and nothing is compared",
          "[train]") {
  std::vector<StepReport> all = reports();
  all[1] = {.failed = true};  // no hash
  CHECK(agree_on_step(all, kMesh, 5).failed);
}

TEST_CASE("every rank makes room for as many documents as any rank has", "[train]") {
  std::vector<StepReport> all = reports();
  CHECK(agree_on_step(all, kMesh, 5).most_documents == 0);
  all[1].most_documents = 3;
  all[2].most_documents = 7;
  CHECK(agree_on_step(all, kMesh, 5).most_documents == 7);
}

TEST_CASE("tp ranks that hold other tokens are named, in an error that every rank throws",
          "[train]") {
  std::vector<StepReport> all = reports();
  all[3].token_hash = 0xbad;
  try {
    agree_on_step(all, kMesh, 57);
    FAIL("nothing was thrown");
  } catch (const DataError& error) {
    CHECK(error.agreed());
    CHECK(error.code() == ExitCode::data);
    CHECK(testing::has(error.what(),
                       "[rank 3] step 57: tp rank 1 of dp group 1 holds other tokens than tp rank "
                       "0 (hash 0000000000000bad against 0000000000000065)"));
    CHECK(testing::has(error.what(), "data.train"));
  }
}

}  // namespace tptrain::train
