#!/usr/bin/env python3
"""Many saves in a row, beside the steps: does a rank keep memory, descriptors, threads or mappings?

    scripts/soak.py --saves 200

A small job of four ranks under mpirun that saves every 4 steps. Each rank is looked at after a quarter of the saves, when all that is taken once has
been taken, and before the last; it may have grown by --kib (of 150 MB), and by no descriptor or thread. Prints a line a rank; exit code 1 where one grew.
"""
import argparse
import os
import pathlib
import sys
import tempfile
import time

import trial_job
from trial_job import ROOT, Run, done_so_far, make_job


def look(pid):
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {"RSS in KiB": int(status["VmRSS"].split()[0]), "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(status["Threads"]),
            "mappings": len(pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines())}


def least_of(pid, looks=20):
    """Of several looks: what a save under way holds for a moment is none of it."""
    found = look(pid)
    for _ in range(looks):
        time.sleep(0.02)
        now = look(pid)
        found = {name: min(found[name], now[name]) for name in found}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/bin/tptrain"))
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--kib", type=int, default=1024)
    options = parser.parse_args()
    trial_job.SAVE_STEPS = 4
    last = 4 * options.saves
    trial_job.MAX_STEPS = last + 400  # the last look is at a run that still goes on
    grown = False
    with tempfile.TemporaryDirectory(prefix="tptrain-soak-") as name:
        folder = pathlib.Path(name)
        make_job(folder, 600)
        run = Run(options.binary, folder)

        def ranks_at(step):
            while (done_so_far(folder) or 0) < step:
                if run.process.poll() is not None:
                    raise SystemExit(f"the run ended:\n{run.output()}")
                time.sleep(0.05)
            return {rank: least_of(pid) for rank, pid in sorted(run.ranks().items())}

        before = ranks_at(last // 4)
        after = ranks_at(last)
        code = run.wait(600)
        saves = run.output().count(" committed in ")
        for rank, state in after.items():
            growth = {key: value - before[rank][key] for key, value in state.items()}
            bad = growth["RSS in KiB"] > options.kib or growth["descriptors"] > 0 or growth["threads"] > 0
            grown |= bad
            print(f"rank {rank}: " + ", ".join(f"{key} {value} ({growth[key]:+d})" for key, value in state.items()) + ("  GREW" if bad else ""))
    print(f"{saves} saves, exit code {code}")
    return 1 if grown or code != 0 or saves < options.saves else 0


if __name__ == "__main__":
    sys.exit(main())
