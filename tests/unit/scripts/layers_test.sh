#!/usr/bin/env bash
# check_layers.py turns red for what it is there for: on a copy of the headers with one thing wrong at a time.
#   layers_test.sh REPOSITORY
set -euo pipefail
repository=$1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/docs"
cp "$repository/docs/architecture.md" "$work/docs/"
(cd "$repository" && find lib apps -name '*.h' -print0 | tar -c --null -T - -f -) | tar -x -C "$work" -f -
check() { python3 "$repository/scripts/check_layers.py" "$work"; }
check > "$work/out" || { cat "$work/out"; echo "the headers alone are refused"; exit 1; }

refuses() {  # FILE TEXT: what FILE, which does not exist, must say; its content is on stdin
  cat > "$work/$1"
  if check > "$work/out"; then echo "$1 is not refused"; exit 1; fi
  grep -qF -- "$2" "$work/out" || { cat "$work/out"; echo "$1: no line says: $2"; exit 1; }
  rm "$work/$1"
}
echo '#include "zero/options.h"' | refuses lib/comm/upwards.h "(comm) may include lower levels only, zero is level"
echo '#include <mpi.h>' | refuses lib/train/mpi_user.cpp "only comm may include it"
echo '#include <ATen/ATen.h>' | refuses lib/formats/torch_user.cpp "lib/formats never includes torch"
printf '// A line.\n%.0s' $(seq 400) > "$work/lib/zero/longest.cpp"
check > /dev/null || { echo "a file of 400 lines is refused"; exit 1; }
rm "$work/lib/zero/longest.cpp"
printf '// A line.\n%.0s' $(seq 401) | refuses lib/zero/too_long.cpp "lib/zero/too_long.cpp: 401 lines, more than 400"
body() { printf 'int f(const X& x) {\n'; printf '  x("{", 1\x27000); // {\n%.0s' $(seq "$1"); echo '}'; }
body 60 > "$work/lib/zero/screen.cpp"
{ echo '// Long: a table.'; body 61; } > "$work/lib/zero/reason.cpp"
check > /dev/null || { echo "a function of 60 lines, or one with its reason, is refused"; exit 1; }
rm "$work"/lib/zero/{screen,reason}.cpp
{ echo 'namespace a {'; echo '// A comment.'; body 61; echo '}'; } | refuses lib/zero/long.cpp "lib/zero/long.cpp:3: a function of 61 lines, more than 60"
{ echo 'X::X(int b) : a{1}, b{b}'; body 61 | tail -n +2 | sed '1s/^/{\n/'; } | refuses lib/zero/long.cpp "lib/zero/long.cpp:2: a function of 61"
mkdir "$work/lib/nameless"
echo '#pragma once' | refuses lib/nameless/a.h "lib/nameless has no level"
echo "all refused"
