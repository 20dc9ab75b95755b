#!/bin/bash
# bf16 against fp32 on the quick start's task: the loss of every step, on several layouts of four CPU ranks.
#   benchmarks/bf16_curve.sh [steps] [program] [setting...]      (settings such as optimizer.learning_rate=1e-3, for every run)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
steps=${1:-300}
program=$(realpath "${2:-build/cpu/bin/tptrain}")
common=("${@:3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A snapshot of the text, so that runs beside an edit see the same data.
cp -r lib tests scripts docs third_party apps benchmarks README.md "$work/"
export OMP_NUM_THREADS=1
mpirun=(mpirun --oversubscribe --bind-to none)
[ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)
run() {  # name, settings...
  local name=$1
  shift
  local settings=()
  for setting in ${common[@]+"${common[@]}"} "$@"; do settings+=(--set "$setting"); done
  echo "== $name: $*" >&2
  (cd "$work" && "${mpirun[@]}" -n 4 "$program" --config "$root/configs/quickstart.yaml" --set run_dir="$work/$name" --set train.max_steps="$steps" \
    --set logging.every_steps=1 --set eval.every_steps=50 --set checkpoint.save_steps=0 "${settings[@]}" > "$work/$name.log" 2>&1) || { tail -20 "$work/$name.log" >&2; exit 1; }
}
run fp32_tp2_dp2 train.dtype=fp32
run fp32_tp4_dp1 train.dtype=fp32 parallel.tp_size=4 parallel.dp_size=1
run bf16_tp2_dp2 train.dtype=bf16
run bf16_tp4_dp1_zero0 train.dtype=bf16 parallel.tp_size=4 parallel.dp_size=1 parallel.zero_stage=0
run bf16_tp1_dp4_zero3 train.dtype=bf16 parallel.tp_size=1 parallel.dp_size=4 parallel.zero_stage=3 train.micro_batch_size=2
python3 - "$work" <<'PY'
import json, pathlib, sys
losses, held_out = {}, {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/metrics.jsonl")):
    rows = [json.loads(line) for line in open(path)]
    losses[path.parent.name] = [row["loss"] for row in rows if "loss" in row]
    held_out[path.parent.name] = [row["eval_loss"] for row in rows if "eval_loss" in row]
def worst(a, b, window):
    mean = lambda x, i: sum(x[i:i + window]) / window
    return 100 * max(abs(mean(a, i) / mean(b, i) - 1) for i in range(len(b) - window + 1))
print("%-26s %9s | worst: step, 10-step mean, 50-step mean, held out (every 50 steps)" % ("run", "held out"))
for name in losses:
    other = "fp32_tp2_dp2" if name in ("bf16_tp2_dp2", "fp32_tp4_dp1") else "bf16_tp2_dp2"
    steps = [i for i in range(len(losses[other])) if abs(losses[name][i] / losses[other][i] - 1) > 0.01]
    against = "" if name == "fp32_tp2_dp2" else "%.2f %%  %.2f %%  %.2f %%  %.2f %%  against %s; above 1 %%: %s" % (
        worst(losses[name], losses[other], 1), worst(losses[name], losses[other], 10),
        worst(losses[name], losses[other], min(50, len(losses[name]))), worst(held_out[name], held_out[other], 1), other, "no step" if not steps else "%d steps, %s" % (len(steps), steps[:8]))
    print("%-26s %9.4f | %s" % (name, held_out[name][-1], against))
PY
