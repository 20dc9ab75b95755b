// main of the tests that need no MPI.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include <sys/prctl.h>

#include "support/checked_session.h"

int main(int argc, char** argv) {
  using namespace tptrain::testing;
  // What a process takes is measured: in pages of one size, whatever this machine is set to.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  return run_tests(argc, argv, /*ranks=*/1, Asserts::in_each_test);
}
