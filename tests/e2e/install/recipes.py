#!/usr/bin/env python3
"""The container recipes by their syntax alone: known instructions and sections, options of package.sh that exist, shell lines that bash can
read. Whether they build needs a container engine and the network.
  recipes.py SOURCE_DIR"""
import json, pathlib, re, subprocess, sys

source = pathlib.Path(sys.argv[1])
folder = source / "scripts/container"
usage = subprocess.run([source / "scripts/package.sh", "--help"], capture_output=True, text=True, check=True).stdout


def check_shell(text):
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for line in text.split("\n"):
        if "scripts/" in line:
            assert (source / re.search(r"scripts/\S+", line).group()).is_file(), line
        if "package.sh" in line:
            for option in re.findall(r"--[a-z]+", line):
                assert f"{option} " in usage, option


count = 0
for line in (folder / "Dockerfile").read_text().split("\n"):
    if not line or line.startswith("#"):
        continue
    instruction, rest = line.split(" ", 1)
    count += 1
    if instruction == "FROM":
        assert re.fullmatch(r"\S+:\S+( AS [a-z]+)?", rest), line
    elif instruction == "RUN":
        check_shell(rest)
    elif instruction == "COPY":
        assert re.fullmatch(r"(--from=[a-z]+ )?\S+ \S+", rest), line
    elif instruction == "ENV":
        assert all("=" in word for word in rest.split()), line
    elif instruction == "CMD":
        assert isinstance(json.loads(rest), list)
    else:
        assert instruction == "WORKDIR", line
assert count > 8
text = (folder / "tptrain.def").read_text()
assert re.search(r"(?m)^Bootstrap: docker\nFrom: \S+:\S+$", text)
sections = dict(re.findall(r"(?ms)^%([a-z]+)\n(.*?)(?=^%|\Z)", text))
assert set(sections) == {"files", "post", "runscript", "test"}, sections
for name in ("post", "runscript", "test"):
    check_shell(sections[name])
print("ok")
