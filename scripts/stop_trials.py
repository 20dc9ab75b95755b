#!/usr/bin/env python3
"""Stops runs at random moments and looks whether anything is lost by it.

    scripts/stop_trials.py --trials 100            a signal at a random moment, from 0.05 s after mpirun on: the run must leave with 75, or
                                                   with 0 where it was done before; started again until it is done, its metrics must be those
                                                   of an undisturbed run
    scripts/stop_trials.py --trials 30 --freeze    a rank is stopped (SIGSTOP) at a random moment of its start-up: the job must be gone within
                                                   hang_timeout + 5 s, with exit code 6 and the rank named

Until the first instruction of a rank a signal ends it, whatever the program does: mpirun passes SIGUSR1 on to a rank that it is just starting,
and dies of one itself before it has begun to listen. Who listens is looked at just before each signal (/proc/PID/status); only where somebody
did not, an end by that signal (128 + its number) is counted apart as the launcher's, and the run must go on from it all the same.

Prints a line a trial and a summary; exit code 1 where any trial failed.
"""
import argparse
import os
import shutil
import signal
import sys
import time

from trial_job import (RANKS, Run, add_common_options, differences, done_so_far, hears, metrics, run_trials, undisturbed, with_folders)


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
    code = run.wait(120 + 20 * options.whole_s)  # a signal that came before the job runs to its end, on whatever machine
    took = time.monotonic() - asked
    what = (f"{signal.Signals(number).name} to {'the ranks' if to_ranks else 'mpirun'} at {delay:.2f} s "
            f"({'in start-up' if step is None else f'after step {step}'}): {code} after {took:.2f} s")
    kind = f"exit code {code}"
    if deaf and step is None and code == 128 + number:
        what += f"; the launcher's: {deaf}"
        kind = f"ended by the signal ({code}) before a rank had begun: the launcher's"
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
        run.wait(60)
        return None  # its start-up was over
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    step = done_so_far(folder)
    limit = options.hang_timeout
    code = run.wait(limit + 30)
    took = time.monotonic() - begin
    what = (f"rank {rank} stopped {delay:.2f} s after the ranks appeared ({'in start-up' if step is None else f'at step {step}'}): "
            f"{code} after {took:.2f} s")
    problems = []
    if code != 6:
        problems.append(f"exit code {code}")
    if took > limit + 5:
        problems.append(f"not gone within {limit + 5} s")
    if f"On this host rank {rank} (process {pid}) is stopped" not in run.output():
        problems.append("the rank is not named")
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
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--hang-timeout", type=int, default=6, metavar="SECONDS")
    parser.add_argument("--earliest", type=float, default=0.05, metavar="SECONDS", help="no signal before")
    options = parser.parse_args()

    def body():
        options.expected, _, options.whole_s = undisturbed(options.binary, options.folders, options.hang_timeout if options.freeze else 120)
        if options.freeze:
            shutil.rmtree(options.folders[0] / "run")
            options.start_up_s = start_up_of(options, options.folders[0])
        print(f"undisturbed: {options.whole_s:.2f} s{f', of which {options.start_up_s:.2f} s of start-up' if options.freeze else ''}; "
              f"{len(options.expected)} lines of metrics", flush=True)
        trial = trial_of_freeze if options.freeze else trial_of_signal
        return run_trials(options, lambda folder, choose: trial(options, folder, choose))

    return with_folders(options, body)


if __name__ == "__main__":
    sys.exit(main())
