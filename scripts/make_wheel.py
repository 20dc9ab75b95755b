#!/usr/bin/env python3
"""Makes a wheel of an installed tree (scripts/package.sh calls it). A wheel is a zip file with a list of its contents; the standard library
is enough.
  make_wheel.py --tree DIR --version V --out DIR"""
import argparse, base64, hashlib, os, pathlib, platform, stat, zipfile

ENTRY = '''"""Starts tptrain, the program in bin/ beside this file. No other Python runs."""
import ctypes
import os
import pathlib
import signal
import sys

PROGRAM = pathlib.Path(__file__).parent / "bin" / "tptrain"


def main():
    # A signal that asks for a stop waits until the program is there to heed it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        ctypes.CDLL("libmpi.so.40")
    except OSError as missing:
        sys.exit(f"tptrain: Open MPI 4 is needed and not installed ({missing}).\\n"
                 "  Debian and Ubuntu: sudo apt-get install openmpi-bin; on a cluster: module load openmpi")
    os.execv(PROGRAM, ["tptrain", *sys.argv[1:]])
'''
METADATA = """Metadata-Version: 2.1
Name: tptrain
Version: {version}
Summary: Trains decoder language models with tensor and data parallelism
Requires-Python: >=3.10
Requires-Dist: torch=={torch}.*
"""


def platform_tag():
    kind, version = platform.libc_ver()
    if kind != "glibc":
        return f"linux_{platform.machine()}"
    return f"manylinux_{version.replace('.', '_')}_{platform.machine()}"


class Wheel:
    def __init__(self, path, info):
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.records, self.info = [], info

    def add(self, name, content, mode=0o644):
        entry = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))  # equal trees make equal wheels
        entry.external_attr = (stat.S_IFREG | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(entry, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        self.records.append(f"{name},sha256={digest},{len(content)}")

    def close(self):
        record = f"{self.info}/RECORD"
        self.records.append(f"{record},,")
        self.zip.writestr(record, "\n".join(self.records) + "\n")
        self.zip.close()


parser = argparse.ArgumentParser()
for option in ("--tree", "--version", "--out"):
    parser.add_argument(option, required=True)
arguments = parser.parse_args()
tree, out = pathlib.Path(arguments.tree), pathlib.Path(arguments.out)
info = f"tptrain-{arguments.version}.dist-info"
tag = f"py3-none-{platform_tag()}"
path = out / f"tptrain-{arguments.version}-{tag}.whl"
wheel = Wheel(path, info)
for file in sorted(tree.rglob("*")):
    if not file.is_file():
        continue
    inside = file.relative_to(tree)
    # Manual page and completions belong where shells look for them; all else stays together.
    shared = inside.parts[:2] in {("share", "man"), ("share", "bash-completion"), ("share", "zsh")}
    name = f"tptrain-{arguments.version}.data/data/{inside}" if shared else f"tptrain/{inside}"
    wheel.add(name, file.read_bytes(), 0o755 if os.access(file, os.X_OK) else 0o644)
wheel.add("tptrain/__init__.py", ENTRY.encode())
wheel.add("tptrain/__main__.py", b"from tptrain import main\n\nmain()\n")
wheel.add(f"{info}/METADATA", METADATA.format(version=arguments.version, torch="2.11").encode())
wheel.add(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: tptrain\nRoot-Is-Purelib: false\nTag: {tag}\n".encode())
wheel.add(f"{info}/entry_points.txt", b"[console_scripts]\ntptrain = tptrain:main\n")
wheel.close()
print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
