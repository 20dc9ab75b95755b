#!/usr/bin/env bash
# Builds with a sanitizer, and runs the unit tests, the tests of two ranks and a training of two ranks under it.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/sanitize.sh asan|tsan [--quick | --training | ctest options ...]
  asan        AddressSanitizer with UndefinedBehaviorSanitizer, into build/asan
  tsan        ThreadSanitizer, into build/tsan
  --quick     some minutes: the unit tests of base, config and formats (asan), of folders with threads of
              their own (tsan)
  --training  the program itself: a training of two ranks that evaluates, saves beside the steps and goes on in another layout
Without further words: all unit tests, every test of two ranks, and that training: 140 tests, hours on
two cores, 19 GB in build/asan.
exit code   0: nothing found; else ctest's
environment:
  JOBS      compilers and tests at a time (the cores of this host)
EOF
}

case "${1:-}" in
  asan | tsan) preset=$1; shift ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
jobs=${JOBS:-$(nproc)}
cmake --preset "$preset" >/dev/null
targets() { ninja -C "build/$preset" -t targets all | sed -nE "s/^($1): phony$/\1/p" | grep -vE '_tests$' | sort -u; }
case "${1:-}" in
  --quick)
    shift
    folders='base|config|formats'
    [ "$preset" = asan ] || folders='base|data'
    chosen=(-R "^unit_($folders)_" "$@")
    wanted=$(targets "unit_($folders)_[a-z0-9_]+")
    ;;
  --training)
    shift
    chosen=(-R '^e2e_train_two_ranks_n2$' "$@")
    wanted='tptrain e2e_train_saves'
    ;;
  '')
    chosen=(-R '^unit_|_n2$')
    wanted=$(targets '(unit|mpi)_[a-z0-9_]+'; echo tptrain e2e_train_saves)
    ;;
  *)
    chosen=("$@")
    wanted=all
    ;;
esac
# shellcheck disable=SC2086
cmake --build --preset "$preset" -j "$jobs" --target $wanted
run=(ctest --preset "$preset" -j "$jobs" "${chosen[@]}")
[ -n "${TPTRAIN_TEST_DATA:-}" ] || run+=(--label-exclude 'data')
# Kernels that place a program at more random bits than ThreadSanitizer's fixed shadow has room for end it at once: without randomness.
if [ "$preset" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then run=(setarch "$(uname -m)" -R "${run[@]}"); fi
"${run[@]}"
