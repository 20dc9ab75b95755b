#!/usr/bin/env bash
# scripts/slurm/train.sbatch with stand-ins for srun, scontrol and tptrain: codes pass through, 75 requeues, SIGUSR1 reaches the program.
set -euo pipefail
script=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

printf '#!/usr/bin/env bash\nwhile [[ "$1" == -* ]]; do shift; done\nexec "$@"\n' >srun
printf '#!/usr/bin/env bash\necho "$@" >requeued.txt\n' >scontrol
# Ends with $CODE; with 75 on SIGUSR1, after a while that stands for the save.
cat >tptrain <<'EOS'
#!/usr/bin/env bash
echo "$*" >arguments.txt
if [ -n "${CODE:-}" ]; then exit "$CODE"; fi
trap 'sleep 0.5; exit 75' USR1
touch ready
for _ in $(seq 100); do sleep 0.1; done
EOS
chmod +x srun scontrol tptrain
touch run.yaml
export PATH="$directory:$PATH" SLURM_JOB_ID=42 SLURM_NTASKS=2

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
run() {
  code=0
  rm -f requeued.txt
  bash "$script" "$@" >output.txt 2>&1 || code=$?
}

for expected in 0 2 5; do
  CODE=$expected run run.yaml --set train.max_steps=3
  [ "$code" -eq "$expected" ] || fail "exit code $expected became $code"
  [ ! -e requeued.txt ] || fail "exit code $expected must not requeue"
done
[ "$(cat arguments.txt)" = "--config run.yaml --set train.max_steps=3" ] || fail "arguments: $(cat arguments.txt)"

CODE=75 run run.yaml
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "75 must requeue"

rm -f requeued.txt
bash "$script" run.yaml >output.txt 2>&1 &
job=$!
for _ in $(seq 100); do [ -e ready ] && break || sleep 0.1; done
kill -USR1 "$job"
wait "$job" || fail "exit code $? after SIGUSR1"
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "SIGUSR1 must reach the program, and its 75 requeue"

run nowhere.yaml
{ [ "$code" -eq 2 ] && grep -q "'nowhere.yaml' is no run file" output.txt; } || fail "a missing run file: $(cat output.txt)"
LAUNCHER=ssh run run.yaml
{ [ "$code" -eq 2 ] && grep -q "must be srun or mpirun" output.txt; } || fail "an unknown launcher: $(cat output.txt)"
echo "all passed"
