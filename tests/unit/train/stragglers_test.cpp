// Which rank holds the others up.
#include "train/stragglers.h"

#include "base/error.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using namespace tptrain::train;

}  // namespace

TEST_CASE("a rank that takes longer than the others is named") {
  std::vector<RankPace> ranks(4, {.steps = 100, .data_s = 0.01, .compute_s = 2, .waiting_s = 1});
  const std::vector<std::string> places = {"rank 0 on a", "rank 1 on a", "rank 2 on b (GPU 0)",
                                           "rank 3 on b (GPU 1)"};
  CHECK(pace_report(ranks, places).warnings.empty());
  CHECK(pace_report(ranks, places).line ==
        "pace of the last 100 steps, median rank: data 0.10 ms, slowest 0.10 on rank 0; own work "
        "20.00 ms, slowest 20.00 on rank 0; waiting for others 10.00 to 10.00 ms");
  ranks[2].compute_s = 2.6;
  ranks[2].waiting_s = 0.4;
  const PaceReport report = pace_report(ranks, places);
  REQUIRE(report.warnings.size() == 1);
  CHECK(report.warnings[0] ==
        "rank 2 on b (GPU 0) holds the others up: own work takes 26.00 ms there, the median rank "
        "20.00 ms (1.30 x)");
  // Much more of next to nothing holds nobody up.
  ranks[2] = ranks[0];
  ranks[1].data_s = 0.05;
  CHECK(pace_report(ranks, places).warnings.empty());
  // Products on the GPU are a thousand, whatever the number of steps.
  for (RankPace& rank : ranks) rank.probe_s = 0.024;
  ranks[3].probe_s = 0.036;
  REQUIRE(pace_report(ranks, places).warnings.size() == 1);
  CHECK(pace_report(ranks, places)
            .warnings[0]
            .find("rank 3 on b (GPU 1) holds the others up: a "
                  "thousand products of a fixed size takes 36.00 ms") == 0);
}

TEST_CASE("a pace travels as bytes") {
  const RankPace sent{.steps = 7, .data_s = 1, .compute_s = 2, .waiting_s = 3, .probe_s = 4};
  CHECK(to_wire(pace_from_wire(to_wire(sent))) == to_wire(sent));
  CHECK_THROWS_AS(pace_from_wire("short"), InternalError);
}

}  // namespace tptrain::testing
