#!/usr/bin/env bash
# Runs clang-tidy with the checks of .clang-tidy over lib/ and apps/.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/tidy.sh [quick | all | FILE.cpp ...]
  quick   the folders without LibTorch that read what others wrote: base, chat_template, config, formats, random
  all     lib/ and apps/ (files that include LibTorch take half a minute each)
exit code   0: nothing found; 1: something; 3: no clang-tidy here
environment:
  CLANG_TIDY  the clang-tidy to use (clang-tidy, or the newest clang-tidy-NN)
  JOBS        files at a time (the cores of this host)
  BUILD       a configured build folder in which each file is compiled by itself (build/tidy, made here)
EOF
}

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
tidy=
for candidate in "${CLANG_TIDY:-}" clang-tidy $(compgen -c clang-tidy- | grep -E '^clang-tidy-[0-9]+$' | sort -rV | uniq); do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null && { tidy=$candidate; break; }
done
case "${1:-all}" in
  -h | --help) usage; exit 0 ;;
  quick) files=$(find lib/{base,chat_template,config,formats,random} -name '*.cpp') ;;
  all) files=$(find lib apps -name '*.cpp') ;;
  *.cpp) files=$(printf '%s\n' "$@") ;;
  *) usage >&2; exit 2 ;;
esac
if [ -z "$tidy" ]; then
  echo "tidy.sh: no clang-tidy on this machine (Debian, Ubuntu: apt-get install clang-tidy)" >&2
  exit 3
fi
build=${BUILD:-build/tidy}
if [ -z "${BUILD:-}" ]; then
  cmake --preset cpu -B "$build" -DTPTRAIN_TESTS=OFF -DTPTRAIN_BENCHMARKS=OFF -DTPTRAIN_UNITY=OFF --no-warn-unused-cli >/dev/null
  cmake --build "$build" --target tptrain_commit >/dev/null # the one header that a build writes
fi

# Of two implementations of a header the build compiles one; clang cannot read gcc's precompiled header, and takes its text.
commands=$(mktemp -d)
trap 'rm -r "$commands"' EXIT
# shellcheck disable=SC2086
python3 - "$build/compile_commands.json" "$commands/compile_commands.json" "$commands/files" $files <<'EOF'
import json, pathlib, re, sys
source, target, list_file, *wanted = sys.argv[1:]
root = pathlib.Path.cwd()
entries = {}
for entry in json.loads(pathlib.Path(source).read_text()):
    entry["command"] = re.sub(r" -(fsanitize|fno-sanitize)=\S+| -Winvalid-pch", "", entry["command"])
    entry["command"] = re.sub(r"-include \S+cmake_pch\.hxx", f"-include {root}/third_party/torch_pch.h", entry["command"])
    entries.setdefault(entry["file"], entry)
compiled = [str(root / name) for name in wanted if str(root / name) in entries]
pathlib.Path(target).write_text(json.dumps([entries[name] for name in compiled]))
pathlib.Path(list_file).write_text("\n".join(compiled))
EOF
count=$(wc -w < "$commands/files")
echo "tidy.sh: $count files"
[ "$count" -gt 0 ] || { echo "tidy.sh: $build compiles none of them by itself" >&2; exit 1; }
failed=0
xargs -a "$commands/files" -P "${JOBS:-$(nproc)}" -n 4 "$tidy" --quiet -p "$commands" 2>"$commands/noise" || failed=1
grep -vE '^[0-9]+ warnings? (and [0-9]+ errors? )?generated|^Suppressed|^Use -header-filter|warnings treated as errors' "$commands/noise" >&2 || true
exit "$failed"
