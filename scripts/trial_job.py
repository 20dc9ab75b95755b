"""What the scripts that disturb runs share: a small job of four ranks, mpirun of the program on it, and what it left. Used by
stop_trials.py and fault_trials.py; does nothing by itself."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RANKS = 4
MAX_STEPS = 40
SAVE_STEPS = 7
KEEP = 2
FIELDS = ("step", "loss", "grad_norm", "lr", "tokens_seen", "eval_loss")
RUN_FILE = """
run_dir: {folder}/run
model:
  architecture: {{model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}}
parallel: {{tp_size: 2, dp_size: 2, zero_stage: 1}}
data: {{train: [{folder}/train.txt], eval: [{folder}/eval.txt]}}
train: {{seq_length: 32, micro_batch_size: 1, global_batch_size: 4, max_steps: {max_steps}, device: cpu, hang_timeout_s: {hang_timeout_s}}}
optimizer: {{learning_rate: 3e-3}}
scheduler: {{type: cosine, warmup_steps: 2}}
checkpoint: {{save_steps: {save_steps}, keep: {keep}}}
eval: {{every_steps: 10, max_batches: 0}}
"""


def make_job(folder, hang_timeout_s):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"Sentence {i} says that {i * i} is the square of {i}.\n" for i in range(3000)]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "eval.txt").write_text("".join(lines[:150]))
    (folder / "run.yaml").write_text(
        RUN_FILE.format(folder=folder, hang_timeout_s=hang_timeout_s, max_steps=MAX_STEPS, save_steps=SAVE_STEPS, keep=KEEP))


class Run:
    """mpirun of the program in `folder`; its output in a file, its processes known by the path of the run file."""

    def __init__(self, program, folder, exported=None, launch=False, restarts=0):
        """exported: variables that the ranks get, and mpirun itself does not; launch: by `tptrain launch`, with the variables as well."""
        self.marker = str(folder / "run.yaml")
        self.output_file = folder / "output.txt"
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1",
                           OMPI_MCA_mpi_yield_when_idle="1", OMPI_MCA_hwloc_base_binding_policy="none")
        if launch:
            environment.update(exported or {})
            command = [program, "launch", "-n", str(RANKS), "--max-restarts", str(restarts)]
        else:
            command = ["mpirun", "--oversubscribe", "-n", str(RANKS)]
            for name, value in (exported or {}).items():
                command += ["-x", f"{name}={value}"]
            command.append(program)
        with open(self.output_file, "w") as output:
            self.process = subprocess.Popen([*command, "--config", self.marker], cwd=folder, env=environment,
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.begin = time.monotonic()

    def ranks(self):
        """Rank -> process id of those that are there."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                if self.marker.encode() not in (entry / "cmdline").read_bytes():
                    continue
                for item in (entry / "environ").read_bytes().split(b"\0"):
                    if item.startswith(b"OMPI_COMM_WORLD_RANK="):
                        found[int(item.split(b"=")[1])] = int(entry.name)
            except OSError:
                continue  # it has ended meanwhile
        return found

    def wait(self, limit_s):
        """The exit code, as a shell says it; None where it is not done within the limit: then it is killed."""
        try:
            code = self.process.wait(limit_s)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            for pid in [self.process.pid, *self.ranks().values()]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it ended meanwhile
            self.process.wait()
            return None

    def output(self):
        return self.output_file.read_text(errors="replace")


def hears(pid, number):
    """Whether the process would survive the signal: it catches it, or holds it back until it does."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigCgt", "SigBlk", "ShdPnd") if name in fields)


def metrics(folder):
    path = folder / "run" / "metrics.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [tuple(row.get(field) for field in FIELDS) for row in rows if "save_s" not in row]


def done_so_far(folder):
    rows = metrics(folder)
    return max((row[0] for row in rows), default=None) if (folder / "run").exists() else None


def differences(found, expected):
    return "\n".join(f"  {a} against {b}" for a, b in zip(found, expected) if a != b) + f"\n  {len(found)} and {len(expected)} lines"


def checkpoints(folder):
    """Newest first, by the number of the save in the manifest."""
    found = []
    for path in (folder / "run" / "checkpoints").glob("step-*"):
        try:
            found.append((json.loads((path / "manifest.json").read_text())["save_sequence"], path))
        except (OSError, ValueError, KeyError):
            continue  # what has no whole manifest is none
    return [path for _, path in sorted(found, reverse=True)]


def shards(checkpoint):
    """Equal states are equal bytes in equally named files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(checkpoint.glob("shard-*"))}


def undisturbed(program, folders, hang_timeout_s):
    """Runs the job in all folders at once, as the trials will. Returns the metrics, the final shards and the median time of a run."""
    for folder in folders:
        make_job(folder, hang_timeout_s)
    runs = [Run(program, folder) for folder in folders]
    took = []
    for run in runs:
        code = run.wait(600)
        took.append(time.monotonic() - run.begin)
        if code != 0:
            raise SystemExit(f"the undisturbed run ended with {code}:\n{run.output()}")
    expected = [(metrics(folder), shards(checkpoints(folder)[0])) for folder in folders]
    if any(other != expected[0] for other in expected):
        raise SystemExit("undisturbed runs differ from one another")
    return *expected[0], statistics.median(took)


def add_common_options(parser):
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/bin/tptrain"), help="the program; its run file says device: cpu")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time; each is four ranks")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run of trials")
    parser.add_argument("--work", default=None, metavar="DIR", help="folder for the runs, on the disk that they shall use; kept. Default: a temporary one")


def run_trials(options, trial):
    """trial(folder, choose) -> (what was done, kind of outcome, what went wrong or ""). Prints a line each and a summary; returns the exit code.
    A trial that returns None met nothing and is drawn again."""
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    outcomes = {}
    failed = 0

    def repeated(folder, number):
        for again in range(50):
            result = trial(folder, random.Random(f"{seed}/{number}/{again}"))
            if result is not None:
                return result
        return "nothing", "never met", "50 draws met nothing"

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        free = list(options.folders)
        waiting = {}
        numbers = iter(range(1, options.trials + 1))

        def start():
            for number in numbers:
                folder = free.pop()
                waiting[pool.submit(repeated, folder, number)] = (number, folder)
                return

        for _ in range(options.jobs):
            start()
        while waiting:
            ready, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ready:
                number, folder = waiting.pop(future)
                free.append(folder)
                what, kind, problem = future.result()
                failed += bool(problem)
                outcomes[kind] = outcomes.get(kind, 0) + 1
                print(f"{number}: {what}{'  FAILED: ' + problem if problem else ''}", flush=True)
                start()
    print("\n".join(f"  {count:5} {kind}" for kind, count in sorted(outcomes.items(), key=lambda item: -item[1])))
    print(f"{options.trials - failed} of {options.trials} as they must be (seed {seed})")
    return 1 if failed else 0


def with_folders(options, body):
    """body() with options.folders, one a job."""
    if options.work is not None:
        options.folders = [pathlib.Path(options.work).resolve() / f"job-{i}" for i in range(options.jobs)]
        return body()
    with tempfile.TemporaryDirectory(prefix="tptrain-trials-") as name:
        options.folders = [pathlib.Path(name).resolve() / f"job-{i}" for i in range(options.jobs)]
        return body()
