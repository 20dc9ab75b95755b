// Philox against the published vectors, and the distributions drawn from it.
#include "random/philox.h"

#include <cmath>
#include <set>
#include <vector>

#include "support/catch.h"

namespace tptrain::random {

using Words = std::array<uint32_t, 4>;

// Source: Random123, tests/kat_vectors, lines "philox_rounds 10".
TEST_CASE("Philox4x32-10 gives the published answers", "[sharding]") {
  CHECK(philox_rounds({0, 0, 0, 0}, {0, 0}) ==
        Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox_rounds({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox_rounds({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("keys differ by seed and by purpose", "[sharding]") {
  std::set<std::array<uint32_t, 2>> keys;
  for (uint64_t seed : {0u, 1u, 2u, 42u}) {
    for (const char* purpose : {"", "init/a", "init/b", "shuffle/epoch 0"}) {
      keys.insert(philox_key(seed, purpose));
      CHECK(philox_key(seed, purpose) == philox_key(seed, purpose));
    }
  }
  CHECK(keys.size() == 16);
}

TEST_CASE("normal numbers have the moments of a standard normal", "[sharding]") {
  const auto key = philox_key(7, "moments");
  const int n = 200000;
  double mean = 0, square = 0, fourth = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < n; ++i) {
    const double x = philox_normal(key, i);
    REQUIRE(std::isfinite(x));
    mean += x / n;
    square += x * x / n;
    fourth += x * x * x * x / n;
    neighbours += x * previous / n;
    previous = x;
  }
  // Five standard errors: 1/sqrt(n) = 0.0022 of the mean, sqrt(2/n), sqrt(96/n), 1/sqrt(n).
  CHECK(std::abs(mean) < 0.012);
  CHECK(std::abs(square - 1) < 0.016);
  CHECK(std::abs(fourth - 3) < 0.11);
  CHECK(std::abs(neighbours) < 0.012);
}

TEST_CASE("uniform numbers lie in [0, 1) and fill it evenly", "[sharding]") {
  const auto key = philox_key(7, "uniform");
  std::vector<int> counts(10);
  for (int i = 0; i < 100000; ++i) {
    const double x = philox_uniform(key, i);
    REQUIRE(x >= 0);
    REQUIRE(x < 1);
    ++counts[static_cast<int>(x * 10)];
  }
  for (const int count : counts) CHECK(std::abs(count - 10000) < 475);  // 5 sqrt(n p (1 - p))
}

TEST_CASE("integers below n: all of them, evenly, and none at or above n", "[sharding]") {
  const auto key = philox_key(7, "below");
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) {
    const uint64_t x = philox_below(key, i, 6);
    REQUIRE(x < 6);
    ++counts[x];
  }
  for (const int count : counts) CHECK(std::abs(count - 10000) < 457);
  CHECK(philox_below(key, 3, 1) == 0);
  CHECK(philox_below(key, uint64_t{1} << 40, uint64_t{1} << 63) < uint64_t{1} << 63);
}

TEST_CASE("numbers far apart in index differ (64-bit counters)", "[sharding]") {
  const auto key = philox_key(7, "far");
  CHECK(philox_normal(key, 2) != philox_normal(key, 2 + (uint64_t{1} << 33)));
  CHECK(philox_uniform(key, 2) != philox_uniform(key, 2 + (uint64_t{1} << 32)));
}

}  // namespace tptrain::random
