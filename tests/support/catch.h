// Catch2 v3 where it is installed, else v2: a test includes this and nothing of Catch2 itself.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;  // as version 2 has it
namespace tptrain::testing {
using Catch::Approx;
}
#else
#include <catch2/catch.hpp>
namespace tptrain::testing {
using Catch::Detail::Approx;  // Catch::Approx is a vector matcher in v2
}
#endif
