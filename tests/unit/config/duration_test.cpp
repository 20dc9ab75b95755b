#include "config/duration.h"

#include <string>

#include "config_test.h"
#include "support/catch.h"

namespace tptrain::testing {

TEST_CASE("a length of time is numbers with their units") {
  CHECK(config::seconds_of("90s") == 90);
  CHECK(config::seconds_of("30m") == 1800);
  CHECK(config::seconds_of("4h") == 4 * 3600);
  CHECK(config::seconds_of("2d") == 2 * 86400);
  CHECK(config::seconds_of("1h30m") == 5400);
  CHECK(config::seconds_of("0.5h") == 1800);
  for (const char* text :
       {"", "4", "h", "4 h", "4w", "-4h", "4h30", "0s", "nan", "1e3s", "99999d"}) {
    INFO(text);
    CHECK_FALSE(config::seconds_of(text));
  }
}

TEST_CASE("train.max_time without a unit is refused at its place") {
  CHECK(refusal(kMinimal, {"train.max_time=3600"})
            .find("train.max_time is 3600: it must be a length of time with its unit, as 90m, 4h, "
                  "2d or "
                  "1h30m.") != std::string::npos);
}

}  // namespace tptrain::testing
