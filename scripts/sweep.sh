#!/usr/bin/env bash
# Runs tptrain once for every combination of some config values, each in its own run_dir, and ends with one table of the results.
# A run that fails is marked and the others go on. Not a scheduler: the runs follow one another on this machine.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/sweep.sh --config FILE --grid KEY=V1,V2,... [--grid ...] [--set KEY=V ...] [--ranks N] [--out DIR] [-- MPIRUN_ARGS...]

Trains the cartesian product of all grids, each run in its own run_dir under DIR, then prints one table (also DIR/table.tsv).

  --config FILE     run file; run_dir and the grid's keys are overridden with --set
  --grid KEY=V,...  values of one config key, for example optimizer.learning_rate=1e-3,3e-3; may be given again for other keys.
                    Commas inside [...] or {...} belong to the value: optimizer.betas=[0.9,0.95],[0.9,0.99]
  --set KEY=V       a value of one config key for all runs; may be repeated
  --ranks N         ranks of every run (default 1)
  --out DIR         where the runs go (default runs/sweep). A run that ended well
                    with the same run file, values and ranks is not run again, so an interrupted sweep can go on.
                    One of others in its place is moved to DIR.earlier: gone on from, it would be a mixture of both
  -- ARGS           all that follows is given to mpirun, for example -- --bind-to core

environment: TPTRAIN (the program; default: tptrain on the PATH, else the newest build/*/bin/tptrain), MPIRUN (default: mpirun)
exit code: 0 where every run ended with 0, else 1
EOF
}

fail() {
  echo "sweep.sh: $*" >&2
  echo "  scripts/sweep.sh --help shows the options." >&2
  exit 2
}

config="" out="runs/sweep" ranks=1
grids=() fixed=() mpirun_args=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --config | --grid | --set | --ranks | --out)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$1" in
        --config) config=$2 ;;
        --grid) grids+=("$2") ;;
        --set)
          [[ "$2" == ?*=* ]] || fail "--set '$2' must have the form section.key=VALUE"
          [[ "$2" != run_dir=* ]] || fail "--set cannot give run_dir: each run gets its own"
          fixed+=("$2")
          ;;
        --ranks) ranks=$2 ;;
        --out) out=$2 ;;
      esac
      shift 2
      ;;
    --) shift; mpirun_args=("$@"); break ;;
    *) fail "unknown argument '$1'" ;;
  esac
done

[ -n "$config" ] || fail "--config is missing"
[ -f "$config" ] || fail "--config $config: no such file"
[ ${#grids[@]} -gt 0 ] || fail "--grid is missing: give at least one KEY=V1,V2,..."
[[ "$ranks" =~ ^[1-9][0-9]*$ ]] || fail "--ranks is '$ranks', it must be a positive whole number"
command -v python3 >/dev/null || fail "python3 is not installed: the results table needs it (standard library only)"
mpirun=${MPIRUN:-mpirun}
command -v "$mpirun" >/dev/null || fail "$mpirun is not installed (apt-get install openmpi-bin), or set MPIRUN"

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tptrain=${TPTRAIN:-}
if [ -z "$tptrain" ] && command -v tptrain >/dev/null; then tptrain=$(command -v tptrain); fi
if [ -z "$tptrain" ]; then
  # The newest build where there are several.
  tptrain=$(find "$source_dir/build" -maxdepth 4 -path '*/bin/tptrain' -type f -printf '%T@ %p\n' 2>/dev/null \
    | sort -rn | head -n 1 | cut -d' ' -f2-)
fi
[ -n "$tptrain" ] || fail "no tptrain program: build it (scripts/setup.sh), put it on the PATH, or set TPTRAIN"
[ -x "$tptrain" ] || fail "TPTRAIN is '$tptrain', which is no executable file"

# One line a run, separated by tabs: its name, then the overrides.
combinations=$(python3 - "${grids[@]}" <<'EOF'
import itertools, re, sys

def values_of(text):
    """Splits at commas outside of brackets."""
    parts, depth, part = [], 0, ""
    for c in text:
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
            continue
        depth += (c in "[{") - (c in "]}")
        part += c
    return parts + [part]

def fail(text):
    sys.exit(f"sweep.sh: {text}\n  scripts/sweep.sh --help shows the options.")

axes, seen = [], set()
for grid in sys.argv[1:]:
    key, equals, text = grid.partition("=")
    if not equals or not key or "." not in key:
        fail(f"--grid '{grid}' must have the form section.key=V1,V2,...")
    if key in seen:
        fail(f"--grid names {key} twice: give all its values in one --grid")
    if key == "run_dir":
        fail("--grid cannot vary run_dir: each run gets its own")
    seen.add(key)
    values = [v.strip() for v in values_of(text)]
    if "" in values:
        fail(f"--grid '{grid}' has an empty value")
    if len(set(values)) < len(values):
        fail(f"--grid '{grid}' names a value twice")
    axes.append([f"{key}={v}" for v in values])
names = set()
for combination in itertools.product(*axes):
    # "optimizer.learning_rate=1e-3" -> "learning_rate=1e-3"; characters that trouble a path become '_'.
    name = ",".join(re.sub(r"[^A-Za-z0-9_.=+-]", "_", o.partition("=")[0].rpartition(".")[2] + "=" + o.partition("=")[2]).strip("_")
                    for o in combination)
    if name in names or len(name) > 200:
        name = f"{name[:190]}-{len(names) + 1}"
    names.add(name)
    print("\t".join((name,) + combination))
EOF
) || exit 2
total=$(printf '%s\n' "$combinations" | wc -l)

mkdir -p "$out"
# What stands in run_dir is another run: its checkpoints must not be gone on from.
set_aside() {
  local run_dir=$1 kept copy=1
  [ -e "$run_dir/metrics.jsonl" ] || [ -e "$run_dir/checkpoints" ] || return 0
  if [ -e "$run_dir/.lock" ] && ! flock -n "$run_dir/.lock" true; then
    fail "$run_dir is in use by a run of other settings: end it, or take another --out"
  fi
  while kept="${out%/}.earlier/$(basename "$run_dir").$copy" && [ -e "$kept" ]; do copy=$((copy + 1)); done
  mkdir -p "$(dirname "$kept")"
  mv "$run_dir" "$kept"
  mkdir "$run_dir"
  echo "sweep.sh: $run_dir held a run of other settings, which is now $kept" >&2
}
number=0 failed=0
interrupted() {
  echo "sweep.sh: interrupted; the same command goes on with the runs that are missing" >&2
  exit 130
}
trap interrupted INT TERM
while IFS=$'\t' read -r name rest <&3; do
  IFS=$'\t' read -r -a overrides <<<"$rest"
  number=$((number + 1))
  run_dir="$out/$name"
  mkdir -p "$run_dir"
  # What decides the run: a changed run file or rank count is another run, not one that is done.
  identity=$(printf '%s\n' "${overrides[@]}" "${fixed[@]}" "ranks=$ranks" "config=$(sha256sum <"$config" | cut -d' ' -f1)")
  if [ "$(cat "$run_dir/sweep.identity" 2>/dev/null || true)" != "$identity" ]; then
    set_aside "$run_dir"
  elif [ "$(cat "$run_dir/sweep.exit_code" 2>/dev/null || true)" = 0 ]; then
    echo "[$number/$total] $name: done before"
    continue
  fi
  rm -f "$run_dir/sweep.exit_code"
  printf '%s\n' "$identity" >"$run_dir/sweep.identity"
  sets=(--set "run_dir=$run_dir")
  for override in "${fixed[@]}" "${overrides[@]}"; do sets+=(--set "$override"); done
  begin=$(date +%s.%N)
  code=0
  "$mpirun" -n "$ranks" "${mpirun_args[@]}" "$tptrain" --config "$config" "${sets[@]}" \
    >"$run_dir/sweep.log" 2>&1 </dev/null || code=$?
  seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
  printf '%s\n' "$seconds" >"$run_dir/sweep.seconds"
  printf '%s\n' "$code" >"$run_dir/sweep.exit_code"
  if [ "$code" -eq 0 ]; then
    echo "[$number/$total] $name: done in $seconds s"
  else
    failed=$((failed + 1))
    echo "[$number/$total] $name: FAILED with exit code $code after $seconds s; from $run_dir/sweep.log:" >&2
    # The program's own words where it had any: mpirun says a lot after them.
    { grep -A 1 -m 3 ' error: ' "$run_dir/sweep.log" || grep -A 1 -m 3 '^[a-z]* error: ' "$run_dir/sweep.log" || tail -n 5 "$run_dir/sweep.log"; } | sed 's/^/    /' >&2
  fi
done 3<<<"$combinations"

mapfile -t names < <(cut -f1 <<<"$combinations")
echo
python3 - "$out" "${names[@]}" <<'EOF'
import json, os, sys

out, names = sys.argv[1], sys.argv[2:]

def first_line(path, default="-"):
    try:
        with open(path) as f:
            return f.readline().strip() or default
    except OSError:
        return default

def number(value, form):
    return format(value, form) if isinstance(value, (int, float)) else "-"

rows = [["run", "steps", "loss", "best_eval_loss", "tokens_per_second", "time_s", "exit_code"]]
for name in names:
    directory = os.path.join(out, name)
    steps, loss, evals, rates = None, None, [], []
    try:
        with open(os.path.join(directory, "metrics.jsonl")) as f:
            for line in f:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the torn last line of a run that was killed
                if entry.get("eval_loss") is not None:
                    evals.append(entry["eval_loss"])
                if "loss" in entry:
                    steps, loss = entry["step"], entry["loss"]
                    rates.append(entry.get("tokens_per_second"))
    except OSError:
        pass
    # The median leaves the slow first step out of the rate.
    rates = sorted(r for r in rates if isinstance(r, (int, float)))
    rate = rates[len(rates) // 2] if rates else None
    code = first_line(os.path.join(directory, "sweep.exit_code"))
    rows.append([name, number(steps, "d"), number(loss, ".4f"), number(min(evals) if evals else None, ".4f"),
                 number(rate, ".0f"), first_line(os.path.join(directory, "sweep.seconds")),
                 code if code == "0" else f"failed ({code})"])

with open(os.path.join(out, "table.tsv"), "w") as f:
    f.writelines("\t".join(row) + "\n" for row in rows)
widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
for row in rows:
    print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]))
EOF
echo
echo "table: $out/table.tsv"
[ "$failed" -eq 0 ]
