#!/usr/bin/env python3
"""Stops runs at random moments and looks whether anything is lost by it.

    scripts/stop_trials.py --trials 100            a signal at a random moment, from 0.05 s after mpirun on: the run must leave with 75, or
                                                   with 0 where it was done before; started again until it is done, its metrics must be those
                                                   of an undisturbed run
    scripts/stop_trials.py --trials 30 --freeze    a rank is stopped (SIGSTOP) at a random moment of its start-up: the job must be gone within
                                                   hang_timeout + --grace s, with exit code 6 and the rank named
    scripts/stop_trials.py --trials 20 --hang      a rank is stopped, or runs in a circle (tests/faults/rank_faults.cpp), at a random step: the same,
                                                   and every survivor names the rank in one line, on standard error and in log.txt
    scripts/stop_trials.py --trials 100 --death    a rank dies at a random moment (SIGKILL, SIGSEGV, SIGABRT, or an exit with 0): all are gone within
                                                   --grace s, the exit code is not 0, nothing is left in /dev/shm; --launch: under tptrain launch
    scripts/stop_trials.py --trials 20 --restart   a rank is killed at a random step under tptrain launch: within 30 s the first step behind the
                                                   checkpoint is done, and the run ends with the metrics of an undisturbed one

Until the first instruction of a rank a signal ends it, whatever the program does: mpirun passes SIGUSR1 on to a rank that it is just starting,
and dies of one itself before it has begun to listen, and when its ranks are gone. Who listens is looked at just before each signal (/proc/PID/status); only where somebody
did not, an end by that signal (128 + its number) is counted apart as the launcher's, and the run must go on from it all the same. So is an mpirun
that stays when all ranks are gone because one died between connecting to PMIx and its answer: PMIx 4.2's server then waits for a lock of its own in
PMIx_server_finalize, for ever. `tptrain launch` ends such an mpirun.

Prints a line a trial and a summary; exit code 1 where any trial failed.
"""
import argparse
import ctypes
import math
import os
import shutil
import signal
import sys
import time

from trial_job import (MAX_STEPS, RANKS, ROOT, SAVE_STEPS, Run, add_common_options, checkpoints, differences, done_so_far, hears, make_job, metrics, run_trials, undisturbed, with_folders)

SYS_TGKILL = 234 if os.uname().machine == "x86_64" else 131  # 131: of aarch64

# What mpirun says of a rank that it lost while that one was connecting.
LOST_WHILE_CONNECTING = "PMIX ERROR: UNREACHABLE"
HANG_KINDS = {"stop": "stopped", "circle": "runs in a circle"}
# tptrain launch ends an mpirun that outlives its ranks by 6 s.
LAUNCH_TAKES = 8


def who_is_deaf(run, ranks, number, to_ranks):
    """Whoever would die of the signal at this moment, as text; "" where nobody."""
    deaf = [f"rank {rank} is not there yet" for rank in range(RANKS) if rank not in ranks]
    deaf += [f"rank {rank} has not begun" for rank, pid in sorted(ranks.items()) if not hears(pid, number)]
    if not to_ranks and not hears(run.process.pid, number):
        deaf.append("mpirun itself has not begun")
    return ", ".join(deaf)


def trial_of_signal(options, folder, choose):
    shutil.rmtree(folder / "run", ignore_errors=True)
    number = choose.choice([signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
    to_ranks = number in (signal.SIGTERM, signal.SIGINT)  # mpirun takes these for itself and kills the ranks
    delay = choose.uniform(options.earliest, options.whole_s)
    run = Run(options.binary, folder)
    time.sleep(delay)
    step = done_so_far(folder)
    ranks = run.ranks()
    deaf = who_is_deaf(run, ranks, number, to_ranks)
    for pid in ranks.values() if to_ranks else [run.process.pid]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it was done before
    asked = time.monotonic()
    code = run.wait(options.patience_s)  # after a signal that came before it the job runs to its end
    took = time.monotonic() - asked
    what = (f"{signal.Signals(number).name} to {'the ranks' if to_ranks else 'mpirun'} at {delay:.2f} s "
            f"({'in start-up' if step is None else f'after step {step}'}): {code} after {took:.2f} s")
    kind = f"exit code {code}"
    # At the end as well: mpirun listens no longer when its ranks are gone.
    at_an_end = step is None or (step >= MAX_STEPS and not ranks)
    if deaf and at_an_end and code == 128 + number:
        what += f"; the launcher's: {deaf}"
        kind = f"ended by the signal ({code}) before a rank had begun, or when all were gone: the launcher's"
    elif code not in (0, 75):
        return what, kind, f"exit code {code}{f' ({deaf})' if deaf else ''}:\n{run.output()}"
    starts = 0
    while code != 0:
        starts += 1
        run = Run(options.binary, folder)
        code = run.wait(300)
        if starts == 3 or code not in (0, 75):
            break
    if code != 0:
        return what, kind, f"the next start ended with {code}:\n{run.output()}"
    if metrics(folder) != options.expected:
        return what, kind, "the metrics are not those of the undisturbed run:\n" + differences(metrics(folder), options.expected)
    return what, kind, ""


def wait_for_ranks(run):
    while len(run.ranks()) < RANKS and run.process.poll() is None:
        time.sleep(0.002)


def trial_of_freeze(options, folder, choose):
    shutil.rmtree(folder / "run", ignore_errors=True)
    rank, delay = choose.randrange(RANKS), choose.uniform(0, options.start_up_s)
    run = Run(options.binary, folder)
    wait_for_ranks(run)
    time.sleep(delay)
    pid = run.ranks().get(rank)
    if pid is None or done_so_far(folder):
        run.wait(options.patience_s)
        return None  # its start-up was over
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    step = done_so_far(folder)
    limit = options.hang_timeout
    code = run.wait(limit + options.grace + 30)
    took = time.monotonic() - begin
    what = (f"rank {rank} stopped {delay:.2f} s after the ranks appeared ({'in start-up' if step is None else f'at step {step}'}): "
            f"{code} after {took:.2f} s")
    problems = []
    if code != 6:
        problems.append(f"exit code {code}")
    if took > limit + options.grace:
        problems.append(f"not gone within {limit + options.grace} s")
    named = (f"On this host rank {rank} (process {pid}) is stopped", f"its process {pid} is stopped")  # before MPI is up, and after
    if not any(name in run.output() for name in named):
        problems.append("the rank is not named")
    return what, f"exit code {code}", "" if not problems else ", ".join(problems) + ":\n" + run.output()


def tell_main_thread(pid, number):
    """A signal to the main thread, wherever it is; another thread may have taken one to the process."""
    ctypes.CDLL(None, use_errno=True).syscall(SYS_TGKILL, pid, pid, int(number))


def lines_that_name(text, rank, others):
    """How many of the others say, in one line, that the rank is behind."""
    return sum(any(line.count(f"[rank {other}] communication error: no progress for ") and f"; behind is rank {rank} on " in line for line in text.splitlines())
               for other in others)


def trial_of_hang(options, folder, choose):
    """A rank that does not go on, at a random step."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    rank, kind, at_step = choose.randrange(RANKS), choose.choice(options.hang_kinds), choose.randrange(2, MAX_STEPS - 4)
    run = Run(options.binary, folder, {"LD_PRELOAD": options.rank_faults})
    while (done_so_far(folder) or 0) < at_step and run.process.poll() is None:
        time.sleep(0.002)
    pid = run.ranks().get(rank)
    if pid is None:
        run.wait(options.patience_s)
        return None  # it was done before
    if kind == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        tell_main_thread(pid, signal.SIGRTMIN + 5)
    begin = time.monotonic()
    step = done_so_far(folder)
    code = run.wait(options.hang_timeout + options.grace + 30)
    took = time.monotonic() - begin
    if code == 0 or (step or 0) >= MAX_STEPS:
        return None  # it was on its way out: training was done, and its watchdog with it
    what = f"rank {rank} {kind} after step {step}: {code} after {took:.2f} s"
    others = [other for other in range(RANKS) if other != rank]
    problems = []
    if code != 6:
        problems.append(f"exit code {code}")
    if took > options.hang_timeout + options.grace:
        problems.append(f"not gone within {options.hang_timeout + options.grace} s")
    for where, text in (("standard error", run.output()), ("log.txt", (folder / "run" / "log.txt").read_text(errors="replace"))):
        named = lines_that_name(text, rank, others)
        if named < len(others):
            problems.append(f"{named} of {len(others)} survivors name the rank on {where}")
    return what, f"{kind}: exit code {code}", "" if not problems else ", ".join(problems) + ":\n" + run.output()


def segments():
    """Without those of unit tests on this machine."""
    return {name for name in os.listdir("/dev/shm") if "tptrain" in name and "tptrain-test" not in name}


def trial_of_death(options, folder, choose):
    """A rank that is gone, at a random moment."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    rank, delay = choose.randrange(RANKS), choose.uniform(0.3, options.whole_s)
    kind = choose.choice(["SIGKILL", "SIGSEGV", "SIGABRT", "exit with 0"])
    before = segments()
    run = Run(options.binary, folder, {"LD_PRELOAD": options.rank_faults}, launch=options.launch)
    time.sleep(delay)
    step = done_so_far(folder)
    pid = run.ranks().get(rank)
    if pid is None:
        run.wait(options.patience_s)
        return None  # not yet there, or gone
    if kind == "exit with 0":
        tell_main_thread(pid, signal.SIGRTMIN + 6)
    else:
        os.kill(pid, getattr(signal, kind))
    begin = time.monotonic()
    while run.ranks() and time.monotonic() - begin < options.grace + 30:
        time.sleep(0.01)
    ranks_took = time.monotonic() - begin
    code = run.wait(options.grace + 30)
    took = time.monotonic() - begin
    if code == 0 and metrics(folder) == options.expected:
        return None  # it was on its way out
    what = f"rank {rank}: {kind} at {delay:.2f} s ({'in start-up' if step is None else f'after step {step}'}): {code} after {took:.2f} s"
    problems = []
    if code is None and not options.launch and step is None and ranks_took < options.grace and LOST_WHILE_CONNECTING in run.output():
        what += f"; the launcher's: its ranks were gone after {ranks_took:.2f} s"
        code, kind, took = 1, f"{kind} while it connected to mpirun, which stayed alone: the launcher's", ranks_took
    if code in (0, None):
        problems.append(f"exit code {code}")
    limit = options.grace + options.launch * LAUNCH_TAKES
    if took > limit:
        problems.append(f"not gone within {limit} s")
    left = segments() - before
    if left:  # of another run on this machine? In its start-up one has a segment there for a moment
        time.sleep(5)
        left &= segments()
    if left:
        problems.append(f"left in /dev/shm: {left}")
    return what, f"{kind}: exit code {code}", "" if not problems else ", ".join(problems) + ":\n" + run.output()


def trial_of_restart(options, folder, choose):
    """launch begins again by itself."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    rank, at_step = choose.randrange(RANKS), choose.randrange(SAVE_STEPS + 2, MAX_STEPS - 4)
    run = Run(options.binary, folder, launch=True, restarts=1)
    while ((done_so_far(folder) or 0) < at_step or not checkpoints(folder)) and run.process.poll() is None:
        time.sleep(0.002)
    pid = run.ranks().get(rank)
    if pid is None:
        run.wait(options.patience_s)
        return None  # it was done before
    step = done_so_far(folder)
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    while "loss" not in run.output().partition("resume: ")[2] and run.process.poll() is None:
        time.sleep(0.01)
    took = time.monotonic() - begin
    code = run.wait(120)
    if "restarts" not in run.output():
        return None  # it was on its way out
    what = f"rank {rank} killed after step {step}: training again after {took:.2f} s, {code}"
    problems = []
    if code != 0 or "resume: " not in run.output():
        problems.append(f"exit code {code}")
    if took > 30:
        problems.append("not within 30 s")
    if metrics(folder) != options.expected:
        problems.append("other metrics than undisturbed:\n" + differences(metrics(folder), options.expected))
    return what, f"exit code {code}", "" if not problems else ", ".join(problems) + ":\n" + run.output()


def start_up_of(options, folder):
    run = Run(options.binary, folder)
    wait_for_ranks(run)
    appeared = time.monotonic()
    while not done_so_far(folder) and run.process.poll() is None:
        time.sleep(0.002)
    took = time.monotonic() - appeared
    run.wait(300)
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--freeze", action="store_true")
    kinds.add_argument("--hang", action="store_true")
    kinds.add_argument("--death", action="store_true")
    kinds.add_argument("--restart", action="store_true")
    parser.add_argument("--rank-faults", default=str(ROOT / "build/cpu/tests/faults/librank_faults.so"), metavar="LIBRARY", help="of --hang and --death")
    parser.add_argument("--hang-kind", choices=HANG_KINDS, help="of --hang; default: either")
    parser.add_argument("--launch", action="store_true", help="of --death: under tptrain launch instead of mpirun")
    parser.add_argument("--hang-timeout", type=int, default=6, metavar="SECONDS", help="of --freeze and --hang; longer where an undisturbed run takes more than half of it")
    parser.add_argument("--grace", type=float, default=5, metavar="SECONDS", help="within which all are gone; more on a machine that is slow or busy")
    parser.add_argument("--earliest", type=float, default=0.05, metavar="SECONDS", help="no signal before")
    options = parser.parse_args()
    options.rank_faults = os.path.abspath(options.rank_faults)  # the loader takes no other where a rank changes its folder
    if (options.hang or options.death) and not os.path.exists(options.rank_faults):
        parser.error(f"--rank-faults {options.rank_faults}: there is no such library; it is built with the tests")
    options.hang_kinds = [HANG_KINDS[options.hang_kind]] if options.hang_kind else list(HANG_KINDS.values())

    def body():
        options.expected, _, options.whole_s = undisturbed(options.binary, options.folders, 120)
        options.patience_s = 120 + 20 * options.whole_s  # for a run to its end, on whatever machine
        if options.freeze or options.hang:  # a slow start is no hang
            options.hang_timeout = max(options.hang_timeout, math.ceil(2 * options.whole_s))
            for folder in options.folders:
                make_job(folder, options.hang_timeout)
        if options.freeze:
            shutil.rmtree(options.folders[0] / "run")
            options.start_up_s = start_up_of(options, options.folders[0])
        print(f"undisturbed: {options.whole_s:.2f} s{f', of which {options.start_up_s:.2f} s of start-up' if options.freeze else ''}; "
              f"{len(options.expected)} lines of metrics", flush=True)
        trial = (trial_of_freeze if options.freeze else trial_of_hang if options.hang else trial_of_death if options.death else trial_of_restart if options.restart else trial_of_signal)
        return run_trials(options, lambda folder, choose: trial(options, folder, choose))

    return with_folders(options, body)


if __name__ == "__main__":
    sys.exit(main())
