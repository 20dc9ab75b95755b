#!/usr/bin/env python3
"""Holds io_faults to the kernel's word: a run of one rank, recorded by the library and traced by strace at once, must show the same calls on the
files of run_dir, in the same number. Left out (77) where strace is missing or may not trace."""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from trial_job import make_job  # noqa: E402

# The kernel's name -> the library's.
NAMES = {"openat": "open", "open": "open", "creat": "open", "read": "read", "pread64": "pread", "write": "write", "writev": "write", "pwrite64": "pwrite",
         "fsync": "fsync", "fdatasync": "fsync", "sync_file_range": "sync_file_range", "ftruncate": "ftruncate", "fallocate": "fallocate",
         "close": "close", "rename": "rename", "renameat": "rename", "renameat2": "rename", "link": "link", "linkat": "link", "unlink": "unlink",
         "unlinkat": "unlink", "rmdir": "rmdir", "mkdir": "mkdir", "mkdirat": "mkdir", "flock": "flock"}


def traced(lines, run_dir):
    """Calls of the kernel on paths or descriptors under run_dir. -y writes a descriptor with its path: 5</folder/run/x>."""
    found = collections.Counter()
    directories = set()
    for line in lines:
        match = re.match(r"^(?:\d+ +)?(\w+)\((.*)$", line)
        if not match or match.group(1) not in NAMES:
            continue
        call, rest = match.groups()
        first = rest.split(", ")[0]
        subject = re.search(r"<([^>]*)>", first)
        quoted = re.search(r'"([^"]*)"', rest)
        path = subject.group(1) if subject and not first.startswith("AT_FDCWD") and not (quoted and call in ("openat", "unlinkat", "mkdirat")) else None
        if path is None:
            path = quoted.group(1) if quoted else ""
            if subject and not path.startswith("/"):
                path = subject.group(1) + "/" + path
        path = path.removesuffix(" (deleted)")
        if path != run_dir and not path.startswith(run_dir + "/"):
            continue
        name = NAMES[call]
        if call == "unlinkat" and "AT_REMOVEDIR" in rest:
            name = "rmdir"
        if name == "open" and "O_DIRECTORY" in rest:
            directories.add(path)
            name = "open directory"
        if name == "close" and (path in directories or os.path.isdir(path)):
            name = "close directory"
        found[name] += 1
    return found


def recorded(lines):
    found = collections.Counter()
    directories = set()
    for line in lines:
        _, _, _, name, path, more, *_ = line.split("\t")
        if name == "opendir" or (name == "open" and more.isdigit() and int(more) & os.O_DIRECTORY):
            directories.add(path)
            name = "open directory"
        if name == "close" and (path in directories or os.path.isdir(path)):
            name = "close directory"
        found[name] += 1
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shim", required=True)
    parser.add_argument("--binary", required=True)
    options = parser.parse_args()
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        print("left out: strace is missing or may not trace")
        return 77
    with tempfile.TemporaryDirectory(prefix="tptrain-strace-") as name:
        folder = pathlib.Path(name).resolve()
        make_job(folder, 60)
        (folder / "record").mkdir()
        run_dir = str(folder / "run")
        environment = [f"LD_PRELOAD={options.shim}", f"IO_FAULTS_DIR={run_dir}", f"IO_FAULTS_RECORD={folder / 'record'}"]
        command = ["strace", "-f", "-y", "-s", "0", "-o", str(folder / "trace"), "-e", "trace=" + ",".join(NAMES),
                   *[part for item in environment for part in ("-E", item)],
                   options.binary, "--config", str(folder / "run.yaml"), "--set", "parallel.tp_size=1", "--set", "parallel.dp_size=1",
                   "--set", "train.max_steps=20", "--set", "data.eval=[]"]
        command[command.index("0")] = "4096"  # whole paths
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"the run ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            return 1
        kernel = traced((folder / "trace").read_text(errors="replace").splitlines(), run_dir)
        library = recorded((folder / "record" / "rank-0.calls").read_text(errors="replace").splitlines())
    wrong = 0
    for name in sorted(set(kernel) | set(library)):
        # A directory that is listed is closed within the C library, where nothing can stand before it.
        same = kernel[name] == library[name] or (name == "close directory" and library[name] <= kernel[name])
        wrong += not same
        print(f"{name:20} kernel {kernel[name]:5}  library {library[name]:5}{'' if same else '  DIFFERS'}")
    if sum(library.values()) < 100:
        print("too few calls for a comparison")
        wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
