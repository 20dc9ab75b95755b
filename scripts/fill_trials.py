#!/usr/bin/env python3
"""Trains into a run_dir on a disk that becomes full, at many fill levels, and looks whether anything is lost by it.

    scripts/fill_trials.py --trials 50

run_dir is a tmpfs. Every other one has a size of its own from the start, from one that holds nothing to one that holds more than all; the others become
full in the run: after a few steps what is left is cut to a size of its own, from nothing to more than the rest takes. The run ends with 0, or with the
code that says what there was no room for (3 tokens, 4 checkpoints, or the files of run_dir at the start), all ranks within --limit; then the disk is
made larger, and the same command goes on to the metrics of an undisturbed run. Saves are beside the steps. Needs root (mount); exit code 77 where it may not. Prints a line a trial and a summary.
"""
import argparse
import os
import shutil
import subprocess
import sys
import time

from trial_job import MAX_STEPS, SAVE_STEPS, Run, add_common_options, differences, done_so_far, metrics, run_trials, undisturbed, with_folders

NOT_HERE = 77
ROOMY_KIB = 256 * 1024


def mount(folder, kib, remount=False):
    """False: a remount to less than lies there."""
    options = f"{'remount,' if remount else ''}size={kib}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tptrain-fill", str(folder / "run")], check=not remount, stderr=subprocess.PIPE)
    return mounted.returncode == 0


def level(number, trials, most):
    """The KiB of a trial, evenly from 0 to `most`."""
    return most * number // max(1, trials - 1)


def leave(folder, kib):
    """Cuts what is free to so much. Another file may be written meanwhile: then once more."""
    while True:
        disk = os.statvfs(folder / "run")
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        if mount(folder, max(used + kib, 4), remount=True):
            return


def trial(options, folder, number, choose):
    in_the_run = number % 2 == 1
    # A save asks for room for itself and some slack; a start for all that it will keep at once.
    kib = (0 if in_the_run else 60) + level(number, options.trials, 3 * options.whole_kib)
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run").mkdir()
    mount(folder, ROOMY_KIB if in_the_run else kib)
    try:
        first = Run(options.binary, folder)
        when = "from the start"
        if in_the_run:
            step = choose.randrange(2, MAX_STEPS - SAVE_STEPS)
            while (done_so_far(folder) or 0) < step and first.process.poll() is None:
                time.sleep(0.002)
            leave(folder, kib)
            when = f"left after step {done_so_far(folder)}"
        code = first.wait(options.limit)
        told = first.output()
        mount(folder, ROOMY_KIB, remount=True)
        what = f"{kib} KiB {when}: exit code {code}"
        kind = f"{'full in the run' if in_the_run else 'small from the start'}: exit code {code}"
        if code not in (0, 3, 4):
            return what, kind, told
        if code in (3, 4) and not any(word in told for word in ("No space left", "free", "needs")):
            return what, kind, "the lack of space is not told:\n" + told
        again = Run(options.binary, folder)
        after = again.wait(options.limit)
        if after != 0:
            return what, kind, f"the next start ended with {after}:\n{again.output()}"
        # Lines that found no room are missing; what stands there must be right.
        lost = "could not be written" in told
        rows = metrics(folder)
        right = [row for row in rows if row in options.expected]
        if right != rows or (not lost and rows != options.expected):
            return what, kind, "other metrics than undisturbed:\n" + differences(rows, options.expected)
        return what, kind, ""
    finally:
        subprocess.run(["umount", "-l", str(folder / "run")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("left out: only root may mount a disk of a size of its own")
        return NOT_HERE
    options.jobs = 1

    def body():
        options.expected, _, _ = undisturbed(options.binary, options.folders, 120)
        folder = options.folders[0]
        size = subprocess.run(["du", "-sk", str(folder / "run")], capture_output=True, text=True, check=True)
        options.whole_kib = int(size.stdout.split()[0])
        numbers = iter(range(options.trials))
        return run_trials(options, lambda place, choose: trial(options, place, next(numbers), choose))

    return with_folders(options, body)


if __name__ == "__main__":
    sys.exit(main())
