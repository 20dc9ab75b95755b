// main of the tests that need no MPI.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include "support/checked_session.h"

int main(int argc, char** argv) {
  using namespace tptrain::testing;
  return run_tests(argc, argv, /*ranks=*/1, Asserts::in_each_test);
}
