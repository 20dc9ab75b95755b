#!/usr/bin/env python3
"""Stops runs at random moments and looks whether anything is lost by it.

    scripts/stop_trials.py --trials 100            a signal at a random moment, from 0.05 s after mpirun on: the run must leave with 75, or
                                                   with 0 where it was done before; started again until it is done, its metrics must be those
                                                   of an undisturbed run
    scripts/stop_trials.py --trials 30 --freeze    a rank is stopped (SIGSTOP) at a random moment of its start-up: the job must be gone within
                                                   hang_timeout + 5 s, with exit code 6 and the rank named

Prints a line a trial and a summary; exit code 1 where any trial failed. --seed repeats a run of trials.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RANKS = 4
FIELDS = ("step", "loss", "grad_norm", "lr", "tokens_seen", "eval_loss")
RUN_FILE = """
run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
parallel: {tp_size: 2, dp_size: 2, zero_stage: 1}
data: {train: [train.txt], eval: [eval.txt]}
train: {seq_length: 32, micro_batch_size: 1, global_batch_size: 4, max_steps: 40, device: cpu, hang_timeout_s: %d}
optimizer: {learning_rate: 3e-3}
scheduler: {type: cosine, warmup_steps: 2}
checkpoint: {save_steps: 7}
eval: {every_steps: 10, max_batches: 0}
"""


def make_job(folder, hang_timeout_s):
    lines = [f"Sentence {i} says that {i * i} is the square of {i}.\n" for i in range(3000)]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "eval.txt").write_text("".join(lines[:150]))
    (folder / "run.yaml").write_text(RUN_FILE % hang_timeout_s)


class Run:
    """mpirun of the program in `folder`; its output in a file, its processes known by the path of the run file."""

    def __init__(self, program, folder):
        self.marker = str(folder / "run.yaml")
        self.output_file = folder / "output.txt"
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1",
                           OMPI_MCA_mpi_yield_when_idle="1", OMPI_MCA_hwloc_base_binding_policy="none")
        with open(self.output_file, "w") as output:
            self.process = subprocess.Popen(["mpirun", "--oversubscribe", "-n", str(RANKS), program, "--config", self.marker],
                                            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
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


def metrics(folder):
    path = folder / "run" / "metrics.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [tuple(row.get(field) for field in FIELDS) for row in rows]


def done_so_far(folder):
    rows = metrics(folder)
    return max((row[0] for row in rows), default=None) if (folder / "run").exists() else None


def trial_of_signal(program, folder, expected, earliest_s, longest_s, choose):
    """What was done, and what went wrong ("" if nothing)."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    number = choose.choice([signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
    to_ranks = number in (signal.SIGTERM, signal.SIGINT)  # mpirun takes these for itself and kills the ranks
    delay = choose.uniform(earliest_s, longest_s)
    run = Run(program, folder)
    time.sleep(delay)
    step = done_so_far(folder)
    pids = list(run.ranks().values()) if to_ranks else [run.process.pid]
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    asked = time.monotonic()
    code = run.wait(60)
    took = time.monotonic() - asked
    what = (f"{signal.Signals(number).name} to {'the ranks' if to_ranks else 'mpirun'} at {delay:.2f} s "
            f"({'in start-up' if step is None else f'after step {step}'}): {code} after {took:.2f} s")
    if code not in (0, 75):
        return what, f"exit code {code}:\n{run.output()}"
    starts = 0
    while code == 75 or not starts:
        starts += 1
        run = Run(program, folder)
        code = run.wait(120)
        if starts > 3:
            break
    if code != 0:
        return what, f"the next start ended with {code}:\n{run.output()}"
    if metrics(folder) != expected:
        return what, "the metrics are not those of the undisturbed run:\n" + "\n".join(
            f"  {a} against {b}" for a, b in zip(metrics(folder), expected) if a != b) + f"\n  {len(metrics(folder))} and {len(expected)} lines"
    return what, ""


def wait_for_ranks(run):
    while len(run.ranks()) < RANKS and run.process.poll() is None:
        time.sleep(0.002)


def trial_of_freeze(program, folder, longest_s, hang_timeout_s, choose):
    shutil.rmtree(folder / "run", ignore_errors=True)
    rank, delay = choose.randrange(RANKS), choose.uniform(0, longest_s)
    run = Run(program, folder)
    wait_for_ranks(run)
    time.sleep(delay)
    pid = run.ranks().get(rank)
    if pid is None or done_so_far(folder):
        run.wait(60)
        return "", None  # its start-up was over
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    step = done_so_far(folder)
    code = run.wait(hang_timeout_s + 30)
    took = time.monotonic() - begin
    what = (f"rank {rank} stopped {delay:.2f} s after the ranks appeared ({'in start-up' if step is None else f'at step {step}'}): "
            f"{code} after {took:.2f} s")
    problems = []
    if code != 6:
        problems.append(f"exit code {code}")
    if took > hang_timeout_s + 5:
        problems.append(f"not gone within {hang_timeout_s + 5} s")
    if f"On this host rank {rank} (process {pid}) is stopped" not in run.output():
        problems.append("the rank is not named")
    return what, "" if not problems else ", ".join(problems) + ":\n" + run.output()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/tptrain"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--hang-timeout", type=int, default=6, metavar="SECONDS")
    parser.add_argument("--earliest", type=float, default=0.05, metavar="SECONDS", help="no signal before; in the first tenth of a second "
                        "mpirun itself may die of it, or pass it on to a rank that it has not started yet: 138, and nothing is lost")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    choose = random.Random(seed)
    print(f"seed {seed}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tptrain-trials-") as name:
        folder = pathlib.Path(name)
        make_job(folder, options.hang_timeout if options.freeze else 120)
        run = Run(options.program, folder)
        wait_for_ranks(run)
        appeared = time.monotonic()
        while not done_so_far(folder) and run.process.poll() is None:
            time.sleep(0.002)
        start_up_s = time.monotonic() - appeared
        code = run.wait(300)
        whole_s = time.monotonic() - run.begin
        if code != 0:
            print(f"the undisturbed run ended with {code}:\n{run.output()}")
            return 1
        expected = metrics(folder)
        print(f"undisturbed: {whole_s:.2f} s, of which {start_up_s:.2f} s of the ranks' start-up; {len(expected)} lines of metrics", flush=True)
        done = 0
        while done < options.trials:
            if options.freeze:
                what, problem = trial_of_freeze(options.program, folder, start_up_s, options.hang_timeout, choose)
                if problem is None:
                    continue
            else:
                what, problem = trial_of_signal(options.program, folder, expected, options.earliest, whole_s, choose)
            done += 1
            failed += bool(problem)
            print(f"{done}: {what}{'  FAILED: ' + problem if problem else ''}", flush=True)
    print(f"{options.trials - failed} of {options.trials} as they must be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
