#!/usr/bin/env python3
"""Types docs/tutorial.md line by line, to the letter, in a clean copy of the repository on a path with a space. The hub is one of our own,
and its models have two layers.

  tutorial.py SOURCE_DIR TPTRAIN [--build]

Lines that set up and build are typed with --build alone; else the program of the test's own build stands where they would leave it.
Prints the transcript, and what each command took. Besides: what the page says of the outcome is so.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from commands import blocks_of, commands_of, failures, hub_of_models

PAGE = "docs/tutorial.md"
BUILDS = ("scripts/setup.sh", "cmake ")


def clean_copy(source, place):
    """The files that git tracks, as they are here; of a tree without git all but what a build leaves."""
    listed = subprocess.run(["git", "-C", source, "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode != 0:
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(".git", ".venv", "build", "runs", "models", "dist"))
        return
    for name in filter(None, listed.stdout.split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, place / name)


def type_commands(place, environment, commands):
    """In one shell, as one reader does; a line's exit code ends it. Returns the output of each."""
    outputs = {}
    shell = subprocess.Popen(["bash"], cwd=place, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for command in commands:
        print(f"$ {command}", flush=True)
        begin, said = time.monotonic(), []
        shell.stdin.write(f"{command}\nprintf '\\n-- exit code %s\\n' $?\n")
        shell.stdin.flush()
        for line in shell.stdout:
            if line.startswith("-- exit code "):
                break
            said.append(line)
            print("    " + line, end="", flush=True)
        else:
            sys.exit(f"the shell ended with `{command}`")
        print(f"  {time.monotonic() - begin:.1f} s\n", flush=True)
        outputs[command] = "".join(said)
        if line != "-- exit code 0\n":
            sys.exit(f"`{command}` of {PAGE}: {line}")
    shell.stdin.close()
    shell.wait()
    return outputs


def steps_of(run):
    return [line["step"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def check_outcome(place, outputs):
    """What the page says comes of it."""
    said = {name: next(said for command, said in outputs.items() if command.startswith(name)) for name in ("timeout ", "tptrain launch -n 2")}
    resumed = said["tptrain launch -n 2"]
    for words in ("stopped: exit code 75", "resume: runs/tutorial/checkpoints/step-", "device mesh: dp 2 x tp 1"):
        assert words in resumed, (words, resumed)
    of_four, of_two = (dict(re.findall(r"step (\d+)/20000  loss (\S+)", said[name])) for name in said)
    assert len(of_two) > 1, resumed
    # A slow machine may have been killed before its first step; sums of bf16 round differently on another layout.
    apart = {step: (loss, of_two[step]) for step, loss in of_four.items() if step in of_two and abs(float(loss) - float(of_two[step])) > 0.01}
    assert not apart, apart
    steps = steps_of(place / "runs/tutorial")
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 200, steps
    assert "runs/tutorial" in (place / "tutorial.html").read_text()
    for folder, file in (("models/tutorial", "model.safetensors"), ("adapters/tutorial", "adapter_model.safetensors"),
                         ("models/tutorial-merged", "model.safetensors")):
        assert (place / folder / file).is_file(), folder


def main(source, program, *options):
    source, begin = pathlib.Path(source), time.monotonic()
    commands = []
    for line, language, lines in blocks_of((source / PAGE).read_text()):
        if language in (None, "", "sh"):
            commands += commands_of(f"{PAGE}:{line}", lines)
    assert not failures, failures
    if "--build" not in options:
        commands = [command for command in commands if not command.startswith(BUILDS)]
    assert len(commands) > 15, commands  # nothing found is nothing checked
    with tempfile.TemporaryDirectory(prefix="tptrain tutorial ") as directory:
        place = pathlib.Path(directory) / "tptrain"
        clean_copy(source, place)
        hub = hub_of_models(pathlib.Path(directory) / "hub")
        if "--build" not in options:
            (place / "build/cpu").mkdir(parents=True)
            (place / "build/cpu/bin").symlink_to(pathlib.Path(program).parent)
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "OMPI_", "OMP_"))}
        outputs = type_commands(place, variables | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(pathlib.Path(directory) / "hub")}, commands)
        check_outcome(place, outputs)
        hub.close()
    print(f"{len(commands)} lines of {PAGE} typed in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
