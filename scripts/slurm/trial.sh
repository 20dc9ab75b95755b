#!/usr/bin/env bash
# train.sbatch on a real Slurm: a cluster of this one machine in a temporary folder, runs that are told to stop at random moments, and whether
# each is requeued until it is done with the metrics of an undisturbed run. For developers: it needs root and the packages slurmctld, slurmd,
# slurm-client, slurm-wlm-basic-plugins and munge. Exit code 3 where it is left out because Slurm cannot be started here.
#
#   scripts/slurm/trial.sh [TRIALS] [PROGRAM]        # 10 trials of build/cpu/bin/tptrain
set -euo pipefail
trials=${1:-10}
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "${2:-$root/build/cpu/bin/tptrain}")

left_out() {
  echo "trial.sh: left out: $*" >&2
  exit 3
}
for tool in munged slurmctld slurmd sbatch srun scontrol; do
  command -v "$tool" >/dev/null || left_out "no $tool (apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)"
done
[ "$(id -u)" -eq 0 ] || left_out "only root can start slurmd"

directory=$(mktemp -d "${TMPDIR:-/tmp}/tptrain-slurm-XXXXXX")
chmod 755 "$directory"
export SLURM_CONF=$directory/slurm.conf
daemons=()
finish() {
  for daemon in "${daemons[@]}"; do kill "$daemon" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ -n "${KEEP:-}" ] || rm -rf "$directory"
}
trap finish EXIT

# munge refuses a key or a socket that others could change.
mkdir -m 700 "$directory/munge"
dd if=/dev/urandom of="$directory/munge/key" bs=1024 count=1 status=none
chmod 400 "$directory/munge/key"
mkdir -m 755 "$directory/socket"
munged --foreground --force --key-file="$directory/munge/key" --socket="$directory/socket/munge" --pid-file="$directory/munge/pid" \
  --log-file="$directory/munge/log" --seed-file="$directory/munge/seed" >"$directory/munged.txt" 2>&1 &
daemons+=($!)

host=$(hostname -s)
port=$((20000 + RANDOM % 20000))
mkdir "$directory/state" "$directory/spool"
cat >"$SLURM_CONF" <<EOS
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$directory/socket/munge
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=30
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE
EOS
# The machine may have fewer cores than the node says: more tasks than cores are as good here.
echo "SlurmdParameters=config_overrides" >>"$SLURM_CONF"
slurmctld -D >"$directory/slurmctld.txt" 2>&1 &
daemons+=($!)
slurmd -D -N "$host" >"$directory/slurmd.txt" 2>&1 &
daemons+=($!)
for _ in $(seq 60); do
  [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break
  sleep 0.5
done
[ "$(sinfo -h -o %t 2>/dev/null)" = idle ] || left_out "slurmd does not come up: $(tail -n 3 "$directory/slurmd.txt" "$directory/slurmctld.txt")"

job=$directory/job
mkdir "$job"
cd "$job"
python3 - <<'EOS'
lines = [f"Sentence {i} says that {i * i} is the square of {i}.\n" for i in range(3000)]
open("train.txt", "w").write("".join(lines))
open("eval.txt", "w").write("".join(lines[:150]))
EOS
cat >run.yaml <<'EOS'
run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
parallel: {tp_size: 2, dp_size: 2, zero_stage: 1}
data: {train: [train.txt], eval: [eval.txt]}
train: {seq_length: 32, micro_batch_size: 1, global_batch_size: 4, max_steps: 60, device: cpu}
optimizer: {learning_rate: 3e-3}
checkpoint: {save_steps: 7}
eval: {every_steps: 10, max_batches: 0}
EOS
numbers() { # the fields that equal runs have in common
  python3 -c 'import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "save_s" in row: continue
    print([row.get(key) for key in ("step", "loss", "grad_norm", "lr", "tokens_seen", "eval_loss")])' "$1"
}
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none OMP_NUM_THREADS=1 TPTRAIN=$program
submit() {
  sbatch --parsable --gpus-per-task=0 --cpus-per-task=1 --ntasks-per-node=4 --time=10 --output=log.txt "$root/scripts/slurm/train.sbatch" run.yaml
}
# The state of a job that ends. A requeued one waits two minutes, as Slurm has it; it is let go after two seconds: within one, its new
# credential would be as old as the one that was revoked, and slurmd would refuse it.
state_at_end() {
  local state
  for _ in $(seq 600); do
    state=$(scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')
    case "$state" in
      PENDING) sleep 2; scontrol update JobId="$1" StartTime=now >/dev/null 2>&1 || true ;;
      RUNNING | COMPLETING | CONFIGURING | REQUEUED) ;;
      *) echo "$state"; return ;;
    esac
    sleep 0.2
  done
  echo "$state, and not at its end"
}

begin=$(date +%s%N)
id=$(submit)
state=$(state_at_end "$id")
[ "$state" = COMPLETED ] || { cat log.txt; echo "trial.sh: the undisturbed job ended $state" >&2; exit 1; }
whole_ms=$((($(date +%s%N) - begin) / 1000000))
numbers run/metrics.jsonl >expected.txt
echo "undisturbed: $whole_ms ms"

failed=0
for trial in $(seq "$trials"); do
  rm -rf run log.txt
  delay_ms=$((50 + (RANDOM * 32768 + RANDOM) % whole_ms))
  id=$(submit)
  until [ "$(scontrol -o show job "$id" | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')" != PENDING ]; do sleep 0.02; done
  sleep "$(printf '%d.%03d' $((delay_ms / 1000)) $((delay_ms % 1000)))"
  at="start-up"
  [ ! -s run/metrics.jsonl ] || at="line $(wc -l <run/metrics.jsonl) of metrics"
  scancel --signal=USR1 --batch "$id" 2>/dev/null || true
  state=$(state_at_end "$id")
  restarts=$(scontrol -o show job "$id" | sed -n 's/.* Restarts=\([0-9]*\).*/\1/p')
  result="as it must be"
  if [ "$state" != COMPLETED ] || ! numbers run/metrics.jsonl | diff -q - expected.txt >/dev/null; then
    failed=$((failed + 1))
    result="FAILED"
    cat log.txt
  fi
  echo "$trial: SIGUSR1 after $delay_ms ms ($at): $state after $restarts restarts, $result"
done
echo "$((trials - failed)) of $trials as they must be"
[ "$failed" -eq 0 ]
