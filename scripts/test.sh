#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU. Further arguments go to ctest (scripts/test.sh -R parity).
# With TPTRAIN_WERROR=ON, as in CI, a warning of a compiler is an error, in both builds.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
scripts/setup.sh --tests --fuzz
scripts/setup.sh --parquet || echo "test.sh: left out: reading Parquet (its library could not be fetched)"

# The tests run on the cpu build. Where a CUDA toolkit is at hand the program, the tests that need a GPU and the benchmarks must compile with it
# as well, and the program train without a driver.
chosen=(-DTPTRAIN_UNITY=ON -DTPTRAIN_WERROR="${TPTRAIN_WERROR:-OFF}" -DTPTRAIN_TESTS=ON -DTPTRAIN_BENCHMARKS=ON)
cmake --preset cpu "${chosen[@]}" >/dev/null
cmake --build --preset cpu
if [ "$(scripts/setup.sh --print-preset)" = cuda ]; then
  cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=90 "${chosen[@]}" >/dev/null
  cmake --build --preset cuda --target tptrain gpu_tests bench_gpu_step bench_kernels_gpu bench_comm_gpu bench_save e2e_train_continuation
  ctest --preset cuda -R e2e_train_continuation
else
  echo "test.sh: left out: the cuda build (no nvcc 13 on this machine)"
fi

# A short look for faults that no test sees by itself: clang-tidy and sanitizers over the folders that read what others wrote, and inputs
# that break their readers; by hand: scripts/tidy.sh all, scripts/fuzz.sh 600, scripts/sanitize.sh asan and tsan.
if [ $# -eq 0 ]; then
  tidied=0
  scripts/tidy.sh quick || tidied=$?
  case $tidied in
    0) ;;
    3) echo "test.sh: left out: clang-tidy (not on this machine)" ;;
    *) exit 1 ;;
  esac
  scripts/sanitize.sh asan --quick
  fuzzed=0
  scripts/fuzz.sh 10 || fuzzed=$?
  case $fuzzed in
    0) ;;
    3) echo "test.sh: left out: fuzzing (no clang with libFuzzer on this machine)" ;;
    *) exit 1 ;;
  esac
fi

arguments=()

TPTRAIN_TEST_DATA=${TPTRAIN_TEST_DATA:-$root/../shared/data}
if [ -d "$TPTRAIN_TEST_DATA" ]; then
  export TPTRAIN_TEST_DATA
else
  echo "test.sh: left out: the tests with label 'data' (no folder $TPTRAIN_TEST_DATA; set TPTRAIN_TEST_DATA)"
  unset TPTRAIN_TEST_DATA
  arguments+=(--label-exclude 'gpu|data')
fi
[ "${#arguments[@]}" -gt 0 ] || arguments+=(--label-exclude gpu)
echo "test.sh: left out: the tests with label 'gpu' (on a GPU machine: ctest --preset cuda -L gpu)"
ctest --preset cpu -j 2 "${arguments[@]}" "$@"
