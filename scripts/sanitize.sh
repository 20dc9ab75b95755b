#!/usr/bin/env bash
# Builds with a sanitizer and runs the unit tests and trainings of two ranks under it.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/sanitize.sh asan|tsan [ctest options ...]
  asan      AddressSanitizer with UndefinedBehaviorSanitizer, into build/asan
  tsan      ThreadSanitizer, into build/tsan
Without ctest options: the unit tests, and every test of two ranks.
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
cmake --build --preset "$preset" -j "$jobs"
chosen=("$@")
[ "${#chosen[@]}" -gt 0 ] || chosen=(-R '^unit_|_n2$')
ctest --preset "$preset" -j "$jobs" "${chosen[@]}"
