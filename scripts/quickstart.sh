#!/usr/bin/env bash
# Installs what is missing, builds, trains a small model on this repository's own text with 4 ranks (tp 2 x dp 2), and writes text with it: on
# the GPUs of this machine, as many as there are of 4, or, without any or with --cpu, on its CPU. May be run again: a second run builds only what changed and goes on from the last checkpoint.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

usage='usage: scripts/quickstart.sh [--cpu]'
[ $# -eq 0 ] || [ "$*" = --cpu ] || { echo "$usage" >&2; exit 2; }
gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | grep -c '^GPU' || true)
preset=cpu run=runs/quickstart layout=()
if [ $# -eq 0 ] && [ "$gpus" -gt 0 ]; then preset=$(scripts/setup.sh --print-preset); fi
ranks=4
if [ "$preset" = cuda ]; then
  run=runs/quickstart-gpu
  [ "$gpus" -ge 4 ] || ranks=$((gpus >= 2 ? 2 : 1))
  [ "$ranks" -eq 4 ] || layout=(--set "parallel.tp_size=$ranks" --set parallel.dp_size=1)
else
  layout=(--set train.device=cpu)
fi
scripts/setup.sh "--$preset"
# For use, not for work on it: without tests and benchmarks, and for the GPUs that are here; without ccache, which costs a first build some
# tenths of a second a file. What was configured before stays so.
settings=()
[ -e "build/$preset/CMakeCache.txt" ] || settings=(-DTPTRAIN_UNITY=ON -DTPTRAIN_TESTS=OFF -DTPTRAIN_BENCHMARKS=OFF -DTPTRAIN_CCACHE=OFF)
[ "${#settings[@]}" -eq 0 ] || [ "$preset" = cpu ] || settings+=(-DCMAKE_CUDA_ARCHITECTURES=native)
cmake --preset "$preset" "${settings[@]}" >/dev/null
# As many as there are cores, which is what 2 GiB a core bears: a compiler takes up to 1.
cmake --build --preset "$preset" --target tptrain --parallel "$(nproc)"

# The model learns a snapshot of the text, so that editing the repository does not change the data under a run that goes on.
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
program=build/$preset/bin/tptrain

echo "== train: mpirun -n $ranks $program --config configs/quickstart.yaml"
start=$(date +%s)
(
  cd "$run/text"
  "${mpirun[@]}" -n "$ranks" "$root/$program" --config "$root/configs/quickstart.yaml" --set "run_dir=$root/$run" "${layout[@]}"
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
