#!/usr/bin/env python3
"""What bin/tptrain hands to the program that it becomes: its arguments, and how long waiting threads spin unless the user says it.

  front.py TPTRAIN
"""
import os
import shutil
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    front = shutil.copy(sys.argv[1], folder)
    with open(front + "-program", "w") as program:
        program.write('#!/bin/sh\necho "$GOMP_SPINCOUNT $*"\n')
    os.chmod(front + "-program", 0o755)
    bare = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for said, expected in (({}, "1000 plan --x"), ({"GOMP_SPINCOUNT": "7"}, "7 plan --x"), ({"OMP_WAIT_POLICY": "active"}, " plan --x")):
        shown = subprocess.run([front, "plan", "--x"], env={**bare, **said}, check=True, capture_output=True, text=True).stdout
        assert shown == expected + "\n", (said, shown)
