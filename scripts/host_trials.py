#!/usr/bin/env python3
"""Trains over several hosts of one machine, and cuts the link between them.

    scripts/host_trials.py --hosts 2 --trials 10      the link of a random host is cut at a random moment of each run
    scripts/host_trials.py --hosts 3 --trials 0       the undisturbed run, and a run_dir that is not shared, alone

A host is a network namespace with a host name of its own, joined to the others by a bridge of virtual Ethernet; `tptrain launch --hosts` starts
ranks there through an agent of its own, without sshd. All hosts share the disk, unless run_dir is hidden from one of them. Looked at:
  - a run over the hosts has the metrics of one on this machine alone, to the last digit;
  - a run_dir that is not shared is refused with exit code 2, the host named;
  - a job whose link is cut is gone on every host, its exit code not 0, within the watchdog's time and what mpirun needs to notice (--within), and
    the survivors name the host; when the link is back the same command goes on from the last checkpoint and ends in the metrics of an undisturbed run;
  - `launch` does the same by itself where the link comes back, and goes on on the hosts that are left where it may (--min-ranks).

Needs root (network namespaces), ip(8), unshare(1) and Open MPI; exit code 77 where it has not got them. Prints a line a trial and a summary.
"""
import argparse
import itertools
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import trial_job
from trial_job import ROOT, checkpoints, differences, done_so_far, make_job, metrics

NAMES = "abcd"
HANG_TIMEOUT = 6
NOT_HERE = 77

AGENT = r"""#!/bin/sh
# Called as: agent HOST WORD... ; starts the words on that host.
host=$1; shift
ip -n {prefix}$host link show eth0 | grep -q LOWER_UP || {{ echo "agent: no link to $host" >&2; exit 255; }}
exec ip netns exec {prefix}$host unshare --uts --mount sh -c '
  hostname "$1"; hide="{folder}/hide.$1"; shift
  [ ! -e "$hide" ] || mount -t tmpfs hidden "{folder}/run"
  exec sh -c "$*"' _ "$host" "$@"
"""


def command_works(*words):
    try:
        return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


class Hosts:
    """Namespaces a, b, ... joined by a bridge; taken down on the way out."""

    def __init__(self, count):
        numbers = itertools.count(os.getpid())  # another run's may be there, or what a killed one left
        self.prefix = next(prefix for prefix in (f"t{number % 100000}" for number in numbers)
                           if not any(pathlib.Path(where).exists() for where in (f"/run/netns/{prefix}a", f"/sys/class/net/{prefix}x")))
        self.names = NAMES[:count]

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True)

    def __enter__(self):
        self.ip("link", "add", f"{self.prefix}x", "type", "bridge")
        self.ip("link", "set", f"{self.prefix}x", "up")
        for number, name in enumerate(self.names, 1):
            space, link = self.prefix + name, f"{self.prefix}v{name}"
            self.ip("netns", "add", space)
            self.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.ip("link", "set", link, "master", f"{self.prefix}x", "up")
            self.ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                self.ip("-n", space, "link", "set", device, "up")
        return self

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.prefix + name])
        subprocess.run(["ip", "link", "del", f"{self.prefix}x"])

    def cut(self, name):
        self.ip("link", "set", f"{self.prefix}v{name}", "down")

    def join(self, name):
        self.ip("link", "set", f"{self.prefix}v{name}", "up")


class Launch:
    """tptrain launch on the first of the hosts."""

    def __init__(self, options, hosts, folder, *more):
        agent = folder / "agent.sh"
        agent.write_text(AGENT.format(prefix=hosts.prefix, folder=folder))
        agent.chmod(0o755)
        self.marker = str(folder / "run.yaml")
        self.output_file = folder / "output.txt"
        shares = {2: [2, 2], 3: [2, 1, 1], 4: [1, 1, 1, 1]}[len(hosts.names)]
        words = [options.binary, "launch", "-n", "4", "--hosts", ",".join(f"{name}:{share}" for name, share in zip(hosts.names, shares)),
                 "--agent", str(agent), *more, "--config", self.marker]
        first = hosts.names[0]
        with open(self.output_file, "w") as output:
            self.process = subprocess.Popen(["ip", "netns", "exec", hosts.prefix + first, "unshare", "--uts", "sh", "-c",
                                             'hostname "$1"; shift; exec "$@"', "_", first, *words],
                                            cwd=folder, env=dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_mpi_yield_when_idle="1"),  # each host believes all cores to be its own
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def wait(self, limit):
        try:
            code = self.process.wait(limit)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def end(self):
        for pid in [self.process.pid, *self.left()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended meanwhile
        self.process.wait()

    def left(self):
        """Processes of the run, on whatever host."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended meanwhile
        return found

    def output(self):
        return self.output_file.read_text(errors="replace")


def clean(folder):
    for name in ("run", *(f"hide.{host}" for host in NAMES)):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def wait_until(condition, limit=600):
    begin = time.monotonic()
    while not condition() and time.monotonic() - begin < limit:
        time.sleep(0.01)
    return condition()


def trial_of_unshared(options, hosts, folder):
    clean(folder)
    (folder / "run").mkdir()
    (folder / f"hide.{hosts.names[-1]}").touch()
    launch = Launch(options, hosts, folder)
    code = launch.wait(300)
    output = launch.output()
    problem = "" if code == 2 and "is not on a file system shared by all hosts" in output and "start 2" not in output else f"exit code {code}:\n{output}"
    clean(folder)
    return f"run_dir is not shared with {hosts.names[-1]}: {code}", problem


def trial_of_cut(options, hosts, folder, choose):
    """Cut; all must end; joined again, the same command goes on. None: it was done before."""
    clean(folder)
    name = choose.choice(hosts.names[1:])
    at_step = choose.randrange(trial_job.SAVE_STEPS + 2, trial_job.MAX_STEPS - 20)
    launch = Launch(options, hosts, folder, "--max-restarts", "0")
    wait_until(lambda: (done_so_far(folder) or 0) >= at_step or launch.process.poll() is not None)
    hosts.cut(name)
    begin = time.monotonic()
    step = done_so_far(folder)
    code = launch.wait(options.within + 60)
    ended = time.monotonic() - begin
    gone = wait_until(lambda: not launch.left(), max(0.1, options.within - ended))
    took = time.monotonic() - begin
    hosts.join(name)
    what = f"link of {name} cut at step {step}: exit code {code} after {ended:.1f} s, all gone after {took:.1f} s"
    if code is None or not gone:
        launch.end()
        return what, "not all ended:\n" + launch.output()
    if code == 0:
        return None
    if took > options.within:
        return what, f"not within {options.within} s:\n{launch.output()}"
    if not (f"no answer comes from host {name}" in launch.output() or f"on node {name}" in launch.output()):
        return what, "the host is not named:\n" + launch.output()
    saved = bool(checkpoints(folder))
    again = Launch(options, hosts, folder)
    code = again.wait(300)
    if code != 0 or (saved and "resume: " not in again.output()):
        return what, f"the next start ended with {code}:\n{again.output()}"
    if metrics(folder) != options.expected:
        return what, "the metrics are not those of the undisturbed run:\n" + differences(metrics(folder), options.expected)
    return what, ""


def trial_of_going_on(options, hosts, folder, comes_back):
    """launch by itself: with the host that comes back, or without the one that does not."""
    clean(folder)
    name = hosts.names[-1]
    launch = Launch(options, hosts, folder, *([] if comes_back else ["--min-ranks", "2"]))
    wait_until(lambda: bool(checkpoints(folder)) or launch.process.poll() is not None)
    hosts.cut(name)
    begin = time.monotonic()
    wait_until(lambda: "restarts" in launch.output() or launch.process.poll() is not None)
    if comes_back:
        hosts.join(name)
    wait_until(lambda: launch.output().count("resume: ") == 1 or launch.process.poll() is not None)
    took = time.monotonic() - begin
    code = launch.wait(300)
    hosts.join(name)
    output = launch.output()
    what = f"link of {name} cut, {'it comes back' if comes_back else 'for good'}: training again after {took:.1f} s, exit code {code}"
    if code != 0 or "resume: " not in output or (not comes_back and "goes on with" not in output):
        return what, f"\n{output}"
    if comes_back and metrics(folder) != options.expected:
        return what, "the metrics are not those of the undisturbed run:\n" + differences(metrics(folder), options.expected)
    return what, ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/bin/tptrain"))
    parser.add_argument("--hosts", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--trials", type=int, default=3, help="links that are cut")
    parser.add_argument("--going-on", action="store_true", help="also without a hand: launch restarts, with all hosts and with fewer")
    parser.add_argument("--within", type=float, default=HANG_TIMEOUT + 25, metavar="SECONDS", help="after a cut all ranks are gone; more where the watchdog's time is longer than %d s, as on a slow machine" % HANG_TIMEOUT)
    parser.add_argument("--steps", type=int, default=400, help="of a run")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run of trials")
    parser.add_argument("--keep-output", default=None, metavar="FILE", help="what the last trial printed")
    options = parser.parse_args()
    if os.geteuid() != 0 or not command_works("unshare", "--net", "--uts", "--mount", "true") or not command_works("ip", "netns", "list"):
        print("left out: no network namespaces here (root, ip and unshare are needed)")
        return NOT_HERE
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    trial_job.MAX_STEPS, trial_job.SAVE_STEPS = options.steps, max(7, options.steps // 20)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tptrain-hosts-") as temporary, Hosts(options.hosts) as hosts:
        folder = pathlib.Path(temporary).resolve()
        make_job(folder, 120)
        # Each host believes all cores of the machine to be its own: a rank that is alone on its host would take a thread for each of them, and those
        # of several hosts would keep one another from running (on two cores a step of three hosts took 270 ms instead of 7).
        run_file = folder / "run.yaml"
        text = run_file.read_text().replace("device: cpu,", "device: cpu, cpu_threads: 1,")
        run_file.write_text(text)
        begin = time.monotonic()
        here = trial_job.Run(options.binary, folder)
        if here.wait(300) != 0:
            raise SystemExit(f"the undisturbed run failed:\n{here.output()}")
        options.expected = metrics(folder)
        # A slow start is no hang.
        hang_timeout = max(HANG_TIMEOUT, math.ceil(2 * (time.monotonic() - begin)))
        run_file.write_text(text.replace("hang_timeout_s: 120", f"hang_timeout_s: {hang_timeout}"))
        options.within += hang_timeout - HANG_TIMEOUT

        def note(what, problem):
            nonlocal failed
            failed += bool(problem)
            print(f"{what}{'  FAILED: ' + problem if problem else ''}", flush=True)

        clean(folder)
        begin = time.monotonic()
        over_hosts = Launch(options, hosts, folder)
        code = over_hosts.wait(300)
        same = metrics(folder) == options.expected
        note(f"{options.hosts} hosts, undisturbed: {code} after {time.monotonic() - begin:.1f} s",
             "" if code == 0 and same else f"{'' if same else 'other metrics than on one host'}\n{over_hosts.output()}")
        note(*trial_of_unshared(options, hosts, folder))
        for number in range(options.trials):
            met = (trial_of_cut(options, hosts, folder, random.Random(f"{seed}/{number}/{again}")) for again in range(20))
            note(*next(filter(None, met), ("a cut", "20 runs were done before it")))
        if options.going_on:
            for comes_back in (True, False):
                note(*trial_of_going_on(options, hosts, folder, comes_back))
        if options.keep_output:
            shutil.copy(folder / "output.txt", options.keep_output)
        count = 2 + options.trials + 2 * options.going_on
    print(f"{count - failed} of {count} as they must be (seed {seed})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
