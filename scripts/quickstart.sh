#!/usr/bin/env bash
# Installs what is missing, builds, trains a small model on this repository's own text with 4 CPU ranks (tp 2 x dp 2), and writes text with it.
# May be run again: a second run builds only what changed and goes on from the last checkpoint.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

scripts/setup.sh --cpu
cmake --preset cpu >/dev/null
cmake --build --preset cpu --target tptrain

# The model learns a snapshot of the text, so that editing the repository does not change the data under a run that goes on.
run=runs/quickstart
if [ ! -d "$run/text" ]; then
  mkdir -p "$run"
  rm -rf "$run/text.tmp"
  mkdir "$run/text.tmp"
  cp -r lib tests scripts docs third_party apps benchmarks README.md "$run/text.tmp/"
  mv "$run/text.tmp" "$run/text"
fi

export OMP_NUM_THREADS=1
mpirun=(mpirun --oversubscribe --bind-to none)
[ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)
program=build/cpu/bin/tptrain

echo "== train: mpirun -n 4 $program --config configs/quickstart.yaml"
start=$(date +%s)
(
  cd "$run/text"
  "${mpirun[@]}" -n 4 "$root/$program" --config "$root/configs/quickstart.yaml" --set "run_dir=$root/$run"
)
echo "== trained in $(($(date +%s) - start)) s; loss on held-out text:"
python3 - "$run/metrics.jsonl" <<'EOF'
import json, sys
for line in map(json.loads, open(sys.argv[1])):
    if "eval_loss" in line:
        print("   step %4d   %.4f" % (line["step"], line["eval_loss"]))
EOF

echo "== verify: $program verify $run"
"$program" verify "$run"
echo "== generate: $program generate --checkpoint $run --prompt '#include \"'"
"$program" generate --checkpoint "$run" --prompt '#include "' --max-new-tokens 250 --temperature 0.8 --top-p 0.9 --seed 1
