#!/usr/bin/env python3
"""Trains into a run_dir on a disk that becomes full, at many fill levels, and looks whether anything is lost by it.

    scripts/fill_trials.py --trials 50

run_dir is a tmpfs of a size of its own each time, from one that holds nothing to one that holds all. The run ends with 0, or with the code that says
what there was no room for (3 tokens, 4 checkpoints, or the files of run_dir at the start), all ranks within --limit; then the disk is made larger, and the same command goes on to the metrics
of an undisturbed run. Saves are beside the steps. Needs root (mount); exit code 77 where it may not. Prints a line a trial and a summary.
"""
import argparse
import os
import shutil
import subprocess
import sys

from trial_job import Run, add_common_options, differences, metrics, run_trials, undisturbed, with_folders

NOT_HERE = 77


def mount(folder, kib, remount=False):
    options = f"{'remount,' if remount else ''}size={kib}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tptrain-fill", str(folder / "run")], check=True)


def sizes_of(options):
    """From next to nothing to what an undisturbed run takes."""
    whole = 600 + options.whole_kib
    return [60 + (whole - 60) * i // max(1, options.trials - 1) for i in range(options.trials)]


def trial(options, folder, number):
    kib = options.sizes[number]
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run").mkdir()
    mount(folder, kib)
    try:
        first = Run(options.binary, folder)
        code = first.wait(options.limit)
        told = first.output()
        mount(folder, 256 * 1024, remount=True)
        what = f"{kib} KiB: exit code {code}"
        kind = f"exit code {code}"
        if code not in (0, 3, 4):
            return what, kind, told
        if code in (3, 4) and not any(word in told for word in ("No space left", "free", "needs")):
            return what, kind, "the lack of space is not told:\n" + told
        again = Run(options.binary, folder)
        after = again.wait(options.limit)
        if after != 0:
            return what, kind, f"the next start ended with {after}:\n{again.output()}"
        # Lines that found no room are missing; what stands there must be right.
        lost = code == 0 and "could not be written" in told
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
        options.sizes = sizes_of(options)
        numbers = iter(range(options.trials))
        return run_trials(options, lambda place, _: trial(options, place, next(numbers)))

    return with_folders(options, body)


if __name__ == "__main__":
    sys.exit(main())
