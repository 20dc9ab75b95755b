#!/usr/bin/env bash
# Time from mpirun to the end of the first optimizer step, on 4 CPU ranks (tp 2 x dp 2); the median of several starts after one that warms the file cache.
#   benchmarks/first_step.sh [PROGRAM] [RUNS] [tptrain's --set values ...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-$root/build/cpu/bin/tptrain}
runs=${2:-5}
shift $(($# > 2 ? 2 : $#))
sets=()
for value in "$@"; do sets+=(--set "$value"); done

export OMP_NUM_THREADS=1
mpirun=(mpirun --oversubscribe --bind-to none)
[ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cd "$root"
for ((i = 0; i <= runs; ++i)); do
  begin=$(date +%s%N)
  # The first line with a loss ends the measurement; the run itself goes on to its end.
  "${mpirun[@]}" -n 4 "$program" --config configs/quickstart.yaml --set "run_dir=$scratch/run$i" --set data.eval=[] --set eval.every_steps=0 \
    --set logging.every_steps=1 --set train.max_steps=2 "${sets[@]}" |
    while IFS= read -r line; do
      case "$line" in *"step 1/"*) echo $((($(date +%s%N) - begin) / 1000000)) >>"$scratch/times" ;; esac
    done
done
tail -n +2 "$scratch/times" | sort -n | awk '{t[NR] = $1} END {printf "first step done %.2f s after mpirun (median of %d; %.2f to %.2f)\n", t[int((NR + 1) / 2)] / 1000, NR, t[1] / 1000, t[NR] / 1000}'
