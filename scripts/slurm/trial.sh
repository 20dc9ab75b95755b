#!/usr/bin/env bash
# train.sbatch and sweep.sbatch on a real Slurm: a cluster of this one machine in a temporary folder. Looked at:
#   - jobs that are told to stop at random moments (scancel --signal) are requeued until they are done with the metrics of an undisturbed run,
#     every other one started by mpirun instead of srun;
#   - jobs that meet their time limit stop before it with their state saved, are requeued and go on with the very next step: every other one by a
#     signal of Slurm's, the others by themselves, since Slurm sends nothing that asks for it;
#   - an array job trains a run for each line of its file.
# For developers: it needs root and the packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge. Exit code 77 where it is
# left out because Slurm cannot be started here.
#
#   scripts/slurm/trial.sh [TRIALS] [TIME_LIMITS] [PROGRAM]      # 10 stops and 2 time limits of build/cpu/bin/tptrain
#   NODES=2 scripts/slurm/trial.sh ...                           # two nodes, each with a network namespace, a host name and a /dev/shm of its own
set -euo pipefail
trials=${1:-10}
time_limits=${2:-2}
nodes=${NODES:-1}
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "${3:-$root/build/cpu/bin/tptrain}")

left_out() {
  echo "trial.sh: left out: $*" >&2
  exit 77
}
for tool in munged slurmctld slurmd sbatch srun scontrol; do
  command -v "$tool" >/dev/null || left_out "no $tool (apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)"
done
[ "$(id -u)" -eq 0 ] || left_out "only root can start slurmd"
[ "$nodes" -eq 1 ] || unshare --net --uts --mount true 2>/dev/null || left_out "no network namespaces here"

directory=$(mktemp -d "${TMPDIR:-/tmp}/tptrain-slurm-XXXXXX")
chmod 755 "$directory"
export SLURM_CONF=$directory/slurm.conf
daemons=()
net=s$(($$ % 100000))  # of the nodes' namespaces, links and bridge
finish() {
  for daemon in "${daemons[@]}"; do kill "$daemon" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ "$nodes" -gt 1 ]; then
    for node in $(seq "$nodes"); do ip netns del "$net-$node" 2>/dev/null || true; done
    ip link del "${net}x" 2>/dev/null || true
  fi
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

# The controller is on this machine as it is. One node is the machine itself; of several each is a namespace, joined by a bridge.
host=$(hostname -s)
# Two neighbours that nobody listens on, below those that the kernel gives to whoever asks for any.
port=$(python3 - <<'EOS'
import random, socket
while True:
    port = random.randrange(20000, 32000)
    try:
        for number in (port, port + 1):
            with socket.socket() as one:
                one.bind(("", number))
    except OSError:
        continue
    print(port)
    break
EOS
)
controller=127.0.0.1
names=("$host")
addresses=(127.0.0.1)
mkdir "$directory/state" "$directory/spool"
if [ "$nodes" -gt 1 ]; then
  names=() addresses=() controller=10.78.0.254
  ip link add "${net}x" type bridge
  ip addr add "$controller/24" dev "${net}x"
  ip link set "${net}x" up
  for node in $(seq "$nodes"); do
    ip netns add "$net-$node"
    ip link add "${net}v$node" type veth peer name eth0 netns "$net-$node"
    ip link set "${net}v$node" master "${net}x" up
    ip -n "$net-$node" addr add "10.78.0.$node/24" dev eth0
    ip -n "$net-$node" link set eth0 up
    ip -n "$net-$node" link set lo up
    names+=("node$node")
    addresses+=("10.78.0.$node")
  done
fi
cat >"$SLURM_CONF" <<EOS
ClusterName=trial
SlurmctldHost=$host($controller)
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$directory/socket/munge
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool/%n
TmpFS=$directory/tmp-%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd-%n.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd-%n.log
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
PartitionName=all Nodes=$(IFS=,; echo "${names[*]}") Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
EOS
for i in "${!names[@]}"; do
  mkdir "$directory/tmp-${names[$i]}"  # PMIx has a folder of the job's name there
  echo "NodeName=${names[$i]} NodeHostname=${names[$i]} NodeAddr=${addresses[$i]} CPUs=8 Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 State=UNKNOWN"
done >>"$SLURM_CONF"
# The machine may have fewer cores than the node says: more tasks than cores are as good here.
echo "SlurmdParameters=config_overrides" >>"$SLURM_CONF"
slurmctld -D >"$directory/slurmctld.txt" 2>&1 &
daemons+=($!)
for i in "${!names[@]}"; do
  place=()
  # Two slurmd of one host would share the sockets of PMIx and the segments of the ranks.
  if [ "$nodes" -gt 1 ]; then
    place=(nsenter --net="/run/netns/$net-$((i + 1))" unshare --uts --mount sh -c 'hostname "$1"; mount -t tmpfs shm /dev/shm; shift; exec "$@"' _ "${names[$i]}")
  fi
  "${place[@]}" slurmd -D -N "${names[$i]}" >"$directory/slurmd-$i.txt" 2>&1 &
  daemons+=($!)
done
are_idle() { [ "$(sinfo -h -N -o %t 2>/dev/null | grep -c '^idle$')" = "$nodes" ]; }
for _ in $(seq 240); do
  if are_idle; then break; fi
  sleep 0.5
done
are_idle || left_out "slurmd does not come up: $(tail -n 3 "$directory"/slurmd-*.txt "$directory/slurmctld.txt")"

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
train: {seq_length: 32, micro_batch_size: 1, global_batch_size: 4, max_steps: 60, device: cpu, cpu_threads: 1}
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
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1  # of mpirun
here=(--parsable --gpus-per-task=0 --cpus-per-task=1 --nodes="$nodes")
submit() { sbatch "${here[@]}" --ntasks-per-node=$((4 / nodes)) --time=10 --output=log.txt "$root/scripts/slurm/train.sbatch" run.yaml; }
state_of() { scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p'; }
# A requeued job waits two minutes, as Slurm has it; it is let go after two seconds: within one, its new credential would be as old as the one
# that was revoked, and slurmd would refuse it.
let_go() {
  sleep 2
  scontrol update JobId="$1" StartTime=now >/dev/null 2>&1 || true
}
# The state of a job that ends.
state_at_end() {
  local state
  for _ in $(seq 1800); do
    state=$(state_of "$1")
    case "$state" in
      PENDING) let_go "$1" ;;
      RUNNING | COMPLETING | CONFIGURING | REQUEUED) ;;
      *) echo "$state"; return ;;
    esac
    sleep 0.2
  done
  echo "$state, and not at its end"
}

# Whether the job's script would survive SIGUSR1: Slurm passes it on to one that has not come to its first line as well, and ends it with that.
script_listens() {
  local command caught
  for command in $(grep -lsa "$directory/spool/.*slurm_script" /proc/[0-9]*/cmdline || true); do
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "${command%cmdline}status" 2>/dev/null) || continue
    if [ -n "$caught" ] && [ $((0x$caught >> 9 & 1)) -eq 1 ]; then return 0; fi
  done
  return 1
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
  delay_ms=$(((RANDOM * 32768 + RANDOM) % whole_ms))
  launcher=srun
  # Over nodes mpirun needs an Open MPI that starts its daemons by srun; on one it starts the ranks itself.
  if [ "$nodes" -eq 1 ] && [ $((trial % 2)) -eq 0 ]; then launcher=mpirun; fi
  id=$(LAUNCHER=$launcher submit)
  until script_listens; do
    case "$(state_of "$id")" in PENDING | CONFIGURING | RUNNING) sleep 0.02 ;; *) break ;; esac
  done
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
  echo "$trial: $launcher, SIGUSR1 after $delay_ms ms ($at): $state after $restarts restarts, $result"
done

# Jobs that would not end by themselves, all at once, of a minute each: Slurm has no shorter limit, and looks every half a minute.
ids=()
for trial in $(seq "$time_limits"); do
  signal=USR1
  [ $((trial % 2)) -eq 1 ] || signal=CONT
  ids+=("$(sbatch "${here[@]}" --ntasks-per-node=$((2 / nodes)) --time=1 --signal="B:$signal@45" --output="limit$trial.txt" "$root/scripts/slurm/train.sbatch" run.yaml \
    --set "run_dir=limit$trial" --set parallel.dp_size=1 --set train.max_steps=1000000 --set checkpoint.save_steps=0 --set scheduler.type=constant)")
done
for trial in $(seq "$time_limits"); do
  id=${ids[$((trial - 1))]}
  for _ in $(seq 300); do
    # A start that is asked to stop as soon as it is there does none: the one behind it does.
    if sed '1,/^[0-9:]* resume: /d' "limit$trial.txt" 2>/dev/null | grep -q '^[0-9:]* step '; then break; fi
    if [ "$(state_of "$id")" = PENDING ]; then let_go "$id"; fi
    sleep 0.5
  done
  sleep 1  # some more steps
  scancel "$id"
  result="as it must be"
  python3 - "limit$trial" <<'EOS' >told.txt 2>&1 || { failed=$((failed + 1)); result="FAILED"; tail -n 60 "limit$trial.txt"; scontrol -o show job "$id" || true; }
import json, re, sys
log = open(sys.argv[1] + ".txt").read()
steps = [json.loads(line)["step"] for line in open(sys.argv[1] + "/metrics.jsonl") if "\"loss\"" in line]
assert "stopped with the state saved; requeueing" in log, "it was not requeued with its state saved"
step = int(re.search(r"resume: .*, step (\d+)", log).group(1))
assert step > 0 and steps == list(range(1, len(steps) + 1)) and len(steps) > step, (step, steps[:3], steps[-3:])
why = re.search(r"stopping: (.*) is near|stopped on request \((SIG\w+)\)", log)
print(f"stopped at step {step} by {why.group(1) or why.group(2)}, requeued, went on with step {step + 1} to {steps[-1]}")
EOS
  echo "time limit $trial: $(cat told.txt), $result"
done

printf -- '--set optimizer.learning_rate=1e-3\n--set optimizer.learning_rate=1e-2\n' >sweep.txt
id=$(cd "$root" && sbatch "${here[@]}" --ntasks-per-node=$((2 / nodes)) --time=10 --array=1-2 --chdir="$job" --output="$job/sweep-%a.txt" scripts/slurm/sweep.sbatch run.yaml sweep.txt \
  --set parallel.dp_size=1 --set train.max_steps=10)
for _ in $(seq 400); do
  if [ -z "$(squeue -h -j "$id" 2>/dev/null)" ]; then break; fi
  sleep 1
done
result="as it must be"
for line in 1 2; do
  if ! grep -q 'done: step 10 of 10' "sweep-$line.txt"; then result="FAILED"; cat "sweep-$line.txt"; fi
done
if cmp -s sweep/1/metrics.jsonl sweep/2/metrics.jsonl; then result="FAILED: both lines trained the same"; fi
[ "$result" = "as it must be" ] || failed=$((failed + 1))
echo "array job of two lines: $result"
all=$((trials + time_limits + 1))
echo "$((all - failed)) of $all as they must be"
[ "$failed" -eq 0 ]
