#!/usr/bin/env bash
# scripts/slurm/train.sbatch and sweep.sbatch with stand-ins for srun, scontrol and tptrain: codes pass through, 75 requeues, SIGUSR1 reaches the program.
set -euo pipefail
script=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

# With LOST it starts nothing and says nothing of it.
printf '#!/usr/bin/env bash\n[ -z "${LOST:-}" ] || exit 0\nwhile [[ "$1" == -* ]]; do shift; done\nexec "$@"\n' >srun
printf '#!/usr/bin/env bash\necho "$@" >requeued.txt\n' >scontrol
# Ends with $CODE; with $STOPPED or 75 on SIGUSR1, after a while that stands for the save. With SAVES it leaves a checkpoint.
cat >tptrain <<'EOS'
#!/usr/bin/env bash
if [ "$1" = inspect ]; then
  echo "inspect $2" >>inspected.txt
  if [ -n "${SLOW:-}" ]; then touch ready; until [ -e signalled ]; do sleep 0.05; done; fi
  [ -e "$2/saves" ] || exit 4
  printf 'checkpoint  x\nsave        number %s, id abc, after -\n' "$(wc -l <"$2/saves")"
  exit 0
fi
echo "$*" >arguments.txt
echo "$*" >>run/log.txt
save() { if [ -n "${SAVES:-}" ]; then echo >>run/saves; fi; }
if [ -n "${CODE:-}" ]; then save; exit "$CODE"; fi
trap 'sleep 0.5; save; exit "${STOPPED:-75}"' USR1
touch ready
for _ in $(seq 600); do sleep 0.1; done
EOS
chmod +x srun scontrol tptrain
mkdir run other
printf 'model: {}\nrun_dir: "run"   # here\n' >run.yaml
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

# signalled ARGS...: runs the script, sends it SIGUSR1 once the program is there, and waits for it.
signalled() {
  code=0
  rm -f requeued.txt ready signalled
  bash "$script" "$@" >output.txt 2>&1 &
  job=$!
  for _ in $(seq 600); do [ -e ready ] && break || sleep 0.1; done
  kill -USR1 "$job"
  touch signalled
  wait "$job" || code=$?
}
signalled run.yaml
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "SIGUSR1 must reach the program, and its 75 requeue"
rm -f arguments.txt
SLOW=1 signalled run.yaml
{ [ "$(cat requeued.txt)" = "requeue 42" ] && [ ! -e arguments.txt ]; } || fail "SIGUSR1 before the program starts must requeue at once"
STOPPED=143 SAVES=1 signalled run.yaml
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "a stop that was saved must requeue whatever the launcher says"
STOPPED=1 SAVES=1 signalled run.yaml
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "a stop that was saved must requeue whatever the launcher says"
STOPPED=1 signalled run.yaml
{ [ ! -e requeued.txt ] && [ "$code" -eq 1 ]; } || fail "a stop that saved nothing and failed with 1 must not requeue"

# Killed: requeued, five times without a newer checkpoint.
for killed in 137 138 143; do
  CODE=$killed run run.yaml
  [ -e requeued.txt ] || fail "$killed must requeue"
  CODE=$killed SLURM_RESTART_COUNT=5 run run.yaml
  { [ ! -e requeued.txt ] && [ "$code" -eq "$killed" ] && grep -q "not requeued" output.txt; } || fail "$killed without an end"
  CODE=$killed SAVES=1 SLURM_RESTART_COUNT=5 run run.yaml
  [ -e requeued.txt ] || fail "$killed with a newer checkpoint must requeue"
done
LOST=1 run run.yaml
[ "$(cat requeued.txt)" = "requeue 42" ] || fail "a launcher that starts nothing must requeue"
LOST=1 SLURM_RESTART_COUNT=5 run run.yaml
{ [ ! -e requeued.txt ] && [ "$code" -eq 1 ] && grep -q "not requeued" output.txt; } || fail "a launcher that starts nothing, without an end"
CODE=1 SAVES=1 run run.yaml
[ ! -e requeued.txt ] || fail "a failure that no signal asked for must not requeue"
sort -u inspected.txt | diff - <(echo "inspect run") || fail "run_dir of the run file"
rm inspected.txt
CODE=1 run run.yaml --set run_dir=other
sort -u inspected.txt | diff - <(echo "inspect other") || fail "run_dir of the command line"

run nowhere.yaml
{ [ "$code" -eq 2 ] && grep -q "'nowhere.yaml' is no run file" output.txt; } || fail "a missing run file: $(cat output.txt)"
LAUNCHER=ssh run run.yaml
{ [ "$code" -eq 2 ] && grep -q "must be srun or mpirun" output.txt; } || fail "an unknown launcher: $(cat output.txt)"

# sweep.sbatch beside it: the words of its line of the grid, and a run_dir of its own.
printf -- '--set optimizer.learning_rate=1e-3\n--set "data.train=[a b.txt]"\n' >grid.txt
export TRAIN_SBATCH=$script
sweep=$(dirname "$script")/sweep.sbatch
script=$sweep
CODE=0 SLURM_ARRAY_TASK_ID=2 run run.yaml grid.txt --set train.max_steps=3
[ "$code" -eq 0 ] || fail "sweep.sbatch ended with $code: $(cat output.txt)"
[ "$(cat arguments.txt)" = "--config run.yaml --set train.max_steps=3 --set data.train=[a b.txt] --set run_dir=sweep/2" ] || fail "a line of a sweep: $(cat arguments.txt)"
# Another grid over the same folder is refused, but for the array job that began it; the same line goes on under any.
line() { CODE=0 SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_JOB_ID=$1 run run.yaml "$2" --set train.max_steps=3; }
line 71 grid.txt
printf 'x\n--set optimizer.learning_rate=2e-3\n' >other_grid.txt
line 72 other_grid.txt
{ [ "$code" -eq 2 ] && grep -q "sweep/2 holds the run of array job 71 with other settings" output.txt; } || fail "another grid became $code: $(cat output.txt)"
line 72 grid.txt
[ "$code" -eq 0 ] || fail "the same line under another job became $code: $(cat output.txt)"
line 72 other_grid.txt
[ "$code" -eq 0 ] || fail "a changed line of the job that began it became $code: $(cat output.txt)"
for number in "" 3; do
  SLURM_ARRAY_TASK_ID=$number run run.yaml grid.txt
  [ "$code" -eq 2 ] || fail "line '$number' of a sweep of two became $code"
done
echo "all passed"
