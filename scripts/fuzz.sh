#!/usr/bin/env bash
# Fuzzes the readers of foreign files: builds every tests/fuzz/*.cpp with clang, libFuzzer, ASan and UBSan into build/fuzz, makes a small
# seed corpus and runs each for a while. What is found stays in build/fuzz/corpus, so that the next run goes on from there.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/fuzz.sh [seconds] [target ...]
  seconds   how long each target runs (10); by hand before a release: 600
  target    names of tests/fuzz/*.cpp without .cpp (all)
exit code   0: nothing found; 1: a crash, a hang or too much memory (the input is in build/fuzz/found); 3: no clang with libFuzzer here
environment:
  CXX_FUZZ         the clang++ to use (clang++, or the newest clang++-NN)
  TPTRAIN_FUZZ_DIR build folder (build/fuzz)
EOF
}

root=$(cd "$(dirname "$0")/.." && pwd)
build=${TPTRAIN_FUZZ_DIR:-$root/build/fuzz}
seconds=10
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  '') ;;
  *[!0-9]*) ;;
  *) seconds=$1; shift ;;
esac

find_clang() {
  local candidate
  for candidate in "${CXX_FUZZ:-}" clang++ $(compgen -c clang++- | grep -E '^clang\+\+-[0-9]+$' | sort -rV | uniq); do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    if echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
      "$candidate" -x c++ -std=c++20 -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}
clang=$(find_clang)
if [ -z "$clang" ]; then
  echo "fuzz.sh: no clang++ with libFuzzer on this machine (Debian, Ubuntu: apt-get install clang libclang-rt-14-dev, or your version's)" >&2
  exit 3
fi

cmake -G Ninja -S "$root/tests/fuzz" -B "$build" -DCMAKE_CXX_COMPILER="$clang" -DCMAKE_C_COMPILER="${clang/clang++/clang}" >/dev/null
targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
  for source in "$root"/tests/fuzz/*.cpp; do targets+=("$(basename "$source" .cpp)"); done
fi
if ! grep -q fuzz_arrow_rows "$build/build.ninja"; then
  echo "fuzz.sh: left out: arrow_rows (no Arrow: scripts/setup.sh --parquet)"
  for number in "${!targets[@]}"; do
    [ "${targets[$number]}" != arrow_rows ] || unset "targets[$number]"
  done
fi
for target in "${targets[@]}"; do
  if [ ! -e "$root/tests/fuzz/$target.cpp" ]; then
    echo "fuzz.sh: there is no tests/fuzz/$target.cpp" >&2
    exit 2
  fi
done
cmake --build "$build" --target "${targets[@]/#/fuzz_}"
python3 "$root/tests/fuzz/make_seeds.py" "$build/seeds"

failed=0
mkdir -p "$build/found"
for target in "${targets[@]}"; do
  mkdir -p "$build/corpus/$target" "$build/seeds/$target"
  log=$build/found/$target.log
  # A reader that takes 25 s or 2 GB for 64 KiB has a fault.
  if "$build/bin/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -timeout=25 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/found/$target-" "$build/corpus/$target" "$build/seeds/$target" >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -oE ' cov: [0-9]+' "$log" | tail -n 1 | grep -oE '[0-9]+')
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    echo "fuzz.sh: $target: $runs inputs in $seconds s, nothing found (edges covered: $coverage, peak memory: $memory MB)"
  else
    failed=1
    echo "fuzz.sh: $target: FOUND SOMETHING; the end of $log:" >&2
    tail -n 40 "$log" >&2
    echo "fuzz.sh: once more with that input: $build/bin/fuzz_$target $build/found/$target-..." >&2
  fi
done
exit $failed
