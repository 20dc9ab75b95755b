#!/usr/bin/env bash
# scripts/sweep.sh with stand-ins for tptrain and mpirun: the product of the grids, a run that fails, the table, going on, and every input error.
set -euo pipefail
sweep=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

# Writes the metrics of two steps, counts its runs, and fails with code 5 at learning rate 3e-3.
cat >tptrain <<'EOS'
#!/usr/bin/env bash
echo "$*" >>runs.txt
while [ $# -gt 0 ]; do
  case "$1" in
    run_dir=*) run_dir=${1#run_dir=} ;;
    optimizer.learning_rate=*) learning_rate=${1#*=} ;;
  esac
  shift
done
printf '%s\n' '{"step":1,"loss":3.0,"tokens_per_second":100.0}' '{"step":1,"eval_loss":2.6,"eval_tokens":5}' \
  '{"step":2,"loss":2.5,"tokens_per_second":1100.0}' '{"step":2,"eval_loss":2.75,"eval_tokens":5}' '{"step":3,"lo' >"$run_dir/metrics.jsonl"
if [ "${learning_rate:-}" = 3e-3 ]; then
  echo "numerics error: step 3: the loss is nan" >&2
  exit 5
fi
EOS
# mpirun -n N ARGS... PROGRAM ...
cat >mpirun <<'EOS'
#!/usr/bin/env bash
echo "$1 $2 $3" >>mpirun.txt
while [[ "$1" != */tptrain ]]; do shift; done
exec "$@"
EOS
chmod +x tptrain mpirun
echo "model: {}" >run.yaml
export TPTRAIN="$directory/tptrain" MPIRUN="$directory/mpirun"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# expect_error TEXT ARGS...: exit code 2 and a message that holds TEXT.
expect_error() {
  local text=$1 code=0 output
  shift
  output=$("$sweep" "$@" 2>&1) || code=$?
  [ "$code" -eq 2 ] || fail "sweep.sh $*: exit code $code, not 2"
  [[ "$output" == *"$text"* ]] || fail "sweep.sh $*: '$text' is not in: $output"
}

code=0
"$sweep" --config run.yaml --ranks 2 --grid optimizer.learning_rate=1e-3,3e-3 --grid train.micro_batch_size=1,2 --out out \
  -- --bind-to core >stdout.txt 2>stderr.txt || code=$?
[ "$code" -eq 1 ] || fail "a sweep with failed runs ends with 1, not $code"
[ "$(wc -l <runs.txt)" -eq 4 ] || fail "2 x 2 values are four runs"
grep -qx -- "-n 2 --bind-to" mpirun.txt || fail "ranks and arguments reach mpirun: $(cat mpirun.txt)"
grep -q "FAILED with exit code 5" stderr.txt || fail "the failed run is announced"
grep -q "the loss is nan" stderr.txt || fail "the end of its log is shown"
diff - <(sed -E 's/[0-9.]+\t(0$|failed)/T\t\1/' out/table.tsv) <<EOS || fail "table.tsv"
run	steps	loss	best_eval_loss	tokens_per_second	time_s	exit_code
learning_rate=1e-3,micro_batch_size=1	2	2.5000	2.6000	1100	T	0
learning_rate=1e-3,micro_batch_size=2	2	2.5000	2.6000	1100	T	0
learning_rate=3e-3,micro_batch_size=1	2	2.5000	2.6000	1100	T	failed (5)
learning_rate=3e-3,micro_batch_size=2	2	2.5000	2.6000	1100	T	failed (5)
EOS

# Only what failed runs again; a changed run file runs all again.
again=("$sweep" --config run.yaml --ranks 2 --grid optimizer.learning_rate=1e-3,3e-3 --out out2)
"${again[@]}" >/dev/null 2>&1 || true
rm runs.txt
"${again[@]}" >/dev/null 2>&1 || true
[ "$(wc -l <runs.txt)" -eq 1 ] || fail "the run that ended well ran again"
echo "# changed" >>run.yaml
"${again[@]}" >/dev/null 2>&1 || true
[ "$(wc -l <runs.txt)" -eq 3 ] || fail "a changed run file must run all again"

# Another run in the place of a run would be gone on from: it is moved away, and nothing of it is lost.
[ -f out2.earlier/learning_rate=1e-3.1/metrics.jsonl ] || fail "the run of the earlier run file is kept"
"$sweep" --config run.yaml --ranks 2 --grid optimizer.learning_rate=1e-3 --set train.max_steps=9 --out out2 >/dev/null 2>stderr.txt
grep -q "out2/learning_rate=1e-3 held a run of other settings, which is now out2.earlier/learning_rate=1e-3.2" stderr.txt \
  || fail "what was moved is said: $(cat stderr.txt)"
[ -f out2.earlier/learning_rate=1e-3.2/metrics.jsonl ] || fail "a second one is kept beside it"
tail -n 1 runs.txt | grep -q -- "--set train.max_steps=9 --set optimizer.learning_rate=1e-3" || fail "--set reaches every run: $(tail -n 1 runs.txt)"
: >out2/learning_rate=1e-3/.lock
exec 9<out2/learning_rate=1e-3/.lock
flock 9
expect_error "is in use by a run of other settings" --config run.yaml --grid optimizer.learning_rate=1e-3 --out out2
exec 9<&-

"$sweep" --config run.yaml --grid 'optimizer.betas=[0.9,0.95],[0.9, 0.99]' --out out3 >/dev/null || fail "commas in brackets"
[ -d "out3/betas=_0.9__0.99" ] && [ -d "out3/betas=_0.9_0.95" ] || fail "run_dirs: $(ls out3)"

"$sweep" --help | grep -q "usage: scripts/sweep.sh" || fail "--help"
expect_error "--config is missing"
expect_error "--config nowhere.yaml: no such file" --config nowhere.yaml
expect_error "--config needs a value" --config
expect_error "--grid is missing" --config run.yaml
expect_error "unknown argument '--gird'" --config run.yaml --gird a.b=1
expect_error "--set 'a.b' must have the form" --config run.yaml --grid a.b=1 --set a.b
expect_error "--set cannot give run_dir" --config run.yaml --grid a.b=1 --set run_dir=x
expect_error "--ranks is 'two'" --config run.yaml --grid a.b=1 --ranks two
expect_error "must have the form section.key=V1,V2" --config run.yaml --grid learning_rate=1
expect_error "has an empty value" --config run.yaml --grid a.b=1,
expect_error "names a value twice" --config run.yaml --grid a.b=1,1
expect_error "names a.b twice" --config run.yaml --grid a.b=1 --grid a.b=2
MPIRUN=no-such-mpirun expect_error "no-such-mpirun is not installed" --config run.yaml --grid a.b=1
TPTRAIN=/no/such/tptrain expect_error "TPTRAIN is '/no/such/tptrain'" --config run.yaml --grid a.b=1
echo "all passed"
