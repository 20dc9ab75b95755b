#!/usr/bin/env python3
"""Lets the disk fail under runs, call by call, and looks whether anything is lost by it.

    scripts/fault_trials.py --trials 200                        an error of the disk at a random call of a random rank
    scripts/fault_trials.py --trials 100 --faults kill,kill_after    a rank is killed before or after a call
    scripts/fault_trials.py --sweep --rank 0                    every call of a rank in turn, with each fault that fits it

A run of the program under mpirun (four ranks, six saves, evaluations; half of the trials go on from a checkpoint) with tests/faults/io_faults
before the C library, which counts the calls on run_dir's files and lets one fail: EIO, ENOSPC, EDQUOT (once, or from there on: "full"), EINTR,
a short write. Then:
  - the run goes on (0), or ends within --limit with the code that says what was being done: 3 reading or writing data, 4 all else; EINTR and
    short writes are no errors; permissions are not blamed;
  - the next start, on a disk that works, goes on from no older step than the last checkpoint that was acknowledged, and where the disk failed
    only once from the last one that was due;
  - and ends in the metrics and in the state, byte by byte, of an undisturbed run, with checkpoint.keep checkpoints and no remains.

Prints a line a trial and a summary; exit code 1 where any trial failed.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import signal
import sys
import time

from trial_job import (KEEP, MAX_STEPS, RANKS, ROOT, SAVE_STEPS, Run, add_common_options, checkpoints, differences, done_so_far, metrics, run_trials,
                       shards, undisturbed, with_folders)

INTERRUPTIBLE = {"open", "read", "pread", "write", "pwrite", "fsync", "flock", "close", "ftruncate", "sync_file_range", "fallocate"}
WRITES = {"write", "pwrite"}
TAKES_SPACE = {"write", "pwrite", "fsync", "mkdir", "rename", "sync_file_range", "fallocate", "link"}
DISK_FAULTS = "EIO,ENOSPC,EDQUOT,full,EINTR,short"

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Call = collections.namedtuple("Call", "scenario rank number name path more")


def fits(fault, call):
    """Whether a kernel could answer this call so."""
    takes_space = call.name in TAKES_SPACE or (call.name == "open" and not (call.more.isdigit() and int(call.more) & WRITING == 0))
    return {"EINTR": call.name in INTERRUPTIBLE, "short": call.name in WRITES, "ENOSPC": takes_space, "EDQUOT": takes_space,
            "full": takes_space}.get(fault, True)


def exported(options, folder, rank="none", number=0, fault=""):
    return {"LD_PRELOAD": options.shim, "IO_FAULTS_DIR": folder / "run", "IO_FAULTS_RECORD": folder / "record", "IO_FAULTS_RANK": rank,
            "IO_FAULTS_AT": number, "IO_FAULTS_KIND": "ENOSPC" if fault == "full" else fault, "IO_FAULTS_STAYS": int(fault == "full")}


def prepare(options, folder, scenario):
    for name in ("run", "record"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "record").mkdir()
    if scenario == "going on":
        shutil.copytree(options.base, folder / "run")


def record_calls(options, scenario):
    """What an undisturbed run does to its files."""
    folder = options.folders[0]
    prepare(options, folder, scenario)
    run = Run(options.binary, folder, exported(options, folder))
    code = run.wait(options.limit)
    if code != 0:
        raise SystemExit(f"the recorded run ({scenario}) ended with {code}:\n{run.output()}")
    if metrics(folder) != options.expected:
        raise SystemExit("a run that is only recorded differs")
    calls = []
    for rank in range(RANKS):
        for line in (folder / "record" / f"rank-{rank}.calls").read_text().splitlines():
            _, _, number, name, path, more, *_ = line.split("\t")
            calls.append(Call(scenario, rank, int(number), name, path, more))
    return calls


def make_base(options):
    """A run_dir that stands between two checkpoints that are due, with what a stop had it save."""
    folder = options.folders[0]
    for asked_at in (16, 12, 8, 8, 8, 8):  # earlier where it was done before the signal came
        shutil.rmtree(folder / "run")
        run = Run(options.binary, folder)
        while (done_so_far(folder) or 0) < asked_at and run.process.poll() is None:
            time.sleep(0.002)
        run.process.send_signal(signal.SIGUSR1)
        code = run.wait(options.limit)
        if code == 75:
            break
        if code not in (0, 128 + signal.SIGUSR1):  # mpirun itself hears it no longer when its ranks are gone
            raise SystemExit(f"the run that was to be stopped ended with {code}:\n{run.output()}")
    else:
        raise SystemExit(f"the run that was to be stopped was done before, each time:\n{run.output()}")
    options.base = folder.parent / "base"
    shutil.rmtree(options.base, ignore_errors=True)
    shutil.copytree(folder / "run", options.base)
    options.base_step = max(steps_of(options.base.parent, "base"))


def steps_of(folder, name="run"):
    return [int(path.name.split("-")[1].split(".")[0]) for path in (folder / name / "checkpoints").glob("step-*")]


def acknowledged(output):
    return [int(step) for step in re.findall(r"checkpoint: \S*/step-(\d+)\S* committed", output)]


def allowed_codes(fault, hit_path):
    if fault in ("kill", "kill_after"):
        return {137}
    if fault == "stop":
        return {6}
    if fault in ("EINTR", "short"):
        return {0}
    if fault == "full":
        return {0, 3, 4}  # what the run met last is not known here
    if os.path.basename(hit_path) == "run":
        return {0, 3, 4}  # a folder's new names are synced for the tokens as well as for checkpoints
    return {0, 3} if "/run/data" in hit_path or hit_path.endswith("metrics.jsonl") else {0, 4}


def judge_end(code, fault, hit_path, output):
    if code is None:
        return ["it did not end"]
    problems = []
    if code not in allowed_codes(fault, hit_path):
        problems.append(f"exit code {code}, not one of {sorted(allowed_codes(fault, hit_path))}")
    if "permission" in output.lower():
        problems.append("permissions are blamed")
    if code in (3, 4) and not re.search(r"Input/output error|No space left|quota|free", output):
        problems.append("the error is not told")
    return problems


def leftovers(folder):
    hidden = [path for place in (folder / "run", folder / "run" / "checkpoints") for path in place.glob(".*")]
    return [str(path.relative_to(folder)) for path in hidden if ".tmp-" in path.name or ".shared-" in path.name]


def judge_rest(options, folder, call, fault, code, output):
    """After a start on a disk that works, until it is done."""
    done = done_so_far(folder) or 0
    base = options.base_step if call.scenario == "going on" else 0
    needed = max([base, *acknowledged(output)])
    one_error = fault in ("EIO", "ENOSPC", "EDQUOT")
    if one_error and code != 0:
        needed = max(needed, done // SAVE_STEPS * SAVE_STEPS)
    run = Run(options.binary, folder)
    after = run.wait(options.limit)
    text = run.output()
    if after != 0:
        return [f"the next start ended with {after}:\n{text}"]
    problems = []
    resumed = re.search(r"resume: \S+, step (\d+)|nothing to train: \S+ is at step (\d+)", text)
    step = int(resumed.group(1) or resumed.group(2)) if resumed else 0
    if step < needed:
        problems.append(f"it went on from step {step}, not from {needed}")
    found = metrics(folder)
    whole = not (fault == "full" or call.path.endswith("metrics.jsonl"))
    if (found != options.expected) if whole else any(row not in options.expected for row in found):
        problems.append("the metrics are not those of the undisturbed run:\n" + differences(found, options.expected))
    held = checkpoints(folder)
    if not held or shards(held[0]) != options.final:
        problems.append(f"the state after {MAX_STEPS} steps is not that of the undisturbed run")
    if len(held) > KEEP:
        problems.append(f"{len(held)} checkpoints are kept")
    if leftovers(folder):
        problems.append("remains: " + ", ".join(leftovers(folder)))
    return problems + ([f"the next start said:\n{text}"] if problems else [])


def trial(options, folder, call, fault):
    prepare(options, folder, call.scenario)
    run = Run(options.binary, folder, exported(options, folder, call.rank, call.number, fault))
    code = run.wait(options.limit)
    took = time.monotonic() - run.begin
    output = run.output()
    hits = (folder / "record" / f"rank-{call.rank}.hit").read_text().splitlines()
    if not hits:
        return None  # the calls came in another order, and there was none of that number
    _, name, path = hits[0].split("\t")
    call = call._replace(name=name, path=path)
    what = (f"{fault} at call {call.number} of rank {call.rank}, {name} of {os.path.relpath(path, folder)} ({call.scenario}): "
            f"{code} after {took:.1f} s")
    problems = judge_end(code, fault, path, output)
    problems += judge_rest(options, folder, call, fault, code, output)
    kind = f"{fault}: exit code {code}"
    return what, kind, "" if not problems else ", ".join(problems) + "\n--- the run said:\n" + output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--shim", default=None, help="libio_faults.so; default: that of the binary's build folder (target io_faults)")
    parser.add_argument("--faults", default=DISK_FAULTS, help=f"which, of {DISK_FAULTS},kill,kill_after,stop")
    parser.add_argument("--sweep", action="store_true", help="every call instead of random ones; --trials is not read")
    parser.add_argument("--rank", type=int, default=None, help="this one's calls alone")
    parser.add_argument("--path", default="", metavar="REGEX", help="calls on paths alone that hold this, seen from run_dir's parent")
    parser.add_argument("--limit", type=int, default=120, metavar="SECONDS", help="within which a run must have ended; more on a slow machine")
    options = parser.parse_args()
    # Absolute: the loader looks for it from the folder of a run.
    options.shim = os.path.abspath(options.shim or pathlib.Path(options.binary).resolve().parent.parent / "tests/faults/libio_faults.so")
    if not os.path.exists(options.shim):
        raise SystemExit(f"{options.shim} is not there: ninja -C {ROOT}/build/cpu io_faults")

    def body():
        hang_timeout_s = 6 if "stop" in options.faults.split(",") else 60
        options.expected, options.final, whole_s = undisturbed(options.binary, options.folders, hang_timeout_s)
        options.limit += 20 * whole_s
        make_base(options)
        calls = record_calls(options, "from the start") + record_calls(options, "going on")
        calls = [call for call in calls if options.rank in (None, call.rank) and
                 re.search(options.path, os.path.relpath(call.path, options.folders[0]))]
        choices = [(call, fault) for call in calls for fault in options.faults.split(",") if fits(fault, call)]
        print(f"undisturbed: {whole_s:.2f} s; {len(calls)} calls, {len(choices)} faults that fit them", flush=True)
        if options.sweep:
            options.trials = len(choices)
            each = iter(choices)
            return run_trials(options, lambda folder, choose: trial(options, folder, *next(each)) or ("a fault", "not met", ""))

        classes = collections.defaultdict(list)
        for call in calls:
            classes[call.scenario, call.rank, call.name, re.sub(r"\d|[0-9a-f]{16,}", "", os.path.relpath(call.path, options.folders[0]))].append(call)

        def random_trial(folder, choose):
            # Half of them any call, half any kind of call, so that the rare ones are met as well.
            call = choose.choice(calls if choose.random() < 0.5 else choose.choice(list(classes.values())))
            return trial(options, folder, call, choose.choice([fault for other, fault in choices if other == call]))

        return run_trials(options, random_trial)

    return with_folders(options, body)


if __name__ == "__main__":
    sys.exit(main())
