// The message before every step: counts are summed once a dp rank, a wish to stop reaches
// everybody, and diverging tokens are named.
#include "train/step_exchange.h"

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::train {
namespace {

constexpr comm::MeshShape kMesh{.dp_size = 2, .tp_size = 2};

StepReport report_of(int rank) {
  return {.token_hash = static_cast<uint64_t>(100 + rank / kMesh.tp_size),
          .target_tokens = 10 + rank / kMesh.tp_size,
          .stop_requested = false};
}

}  // namespace

TEST_CASE("target tokens count once a dp rank, and one rank's wish to stop is everybody's",
          "[train]") {
  testing::ThreadGroup group(4);
  std::vector<StepAgreement> agreements(4);
  const auto thrown = group.run([&](comm::ControlGroup& world) {
    StepReport report = report_of(world.rank());
    report.stop_requested = world.rank() == 3;
    agreements[world.rank()] = exchange_step_reports(world, kMesh, 5, report);
  });
  for (int rank = 0; rank < 4; ++rank) {
    CHECK(thrown[rank] == nullptr);
    CHECK(agreements[rank].target_tokens == 10 + 11);
    CHECK(agreements[rank].stop_requested);
  }
}

TEST_CASE("tp ranks that hold other tokens stop every rank with the same error", "[train]") {
  testing::ThreadGroup group(4);
  const auto thrown = group.run([&](comm::ControlGroup& world) {
    StepReport report = report_of(world.rank());
    if (world.rank() == 3) report.token_hash = 0xbad;
    exchange_step_reports(world, kMesh, 57, report);
  });
  for (int rank = 0; rank < 4; ++rank) {
    REQUIRE(thrown[rank] != nullptr);
    try {
      std::rethrow_exception(thrown[rank]);
    } catch (const DataError& error) {
      CHECK(error.agreed());
      CHECK(error.code() == ExitCode::data);
      CHECK(testing::has(error.what(),
                         "[rank 3] step 57: tp rank 1 of dp group 1 holds other tokens than tp "
                         "rank 0 (hash 0000000000000bad against 0000000000000065)"));
      CHECK(testing::has(error.what(), "data.train"));
    }
  }
}

}  // namespace tptrain::train
