#!/usr/bin/env python3
"""docs/messages.md: the first words of every message that tptrain can say, from the sources themselves.

  messages.py            prints the page
  messages.py --check    says where docs/messages.md is not that page; a test
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"ConfigError": "config", "DataError": "data", "CheckpointError": "checkpoint", "NumericsError": "numerics", "CommError": "communication",
         "InternalError": "internal"}
EXIT = {"config": 2, "data": 3, "checkpoint": 4, "numerics": 5, "communication": 6, "internal": 1, "its caller's": "-"}
HEAD = """# What tptrain can say

The first words of every message, by the kind that stands before it and so by its exit code; `...`
stands for names and numbers. What follows in a message is the rule that was broken, and what to do.
The ones that people meet first, and those of the programs around tptrain, are explained in
[troubleshooting.md](troubleshooting.md). Written by `scripts/messages.py > docs/messages.md`.
"""


def argument(text, at):
    """The source between the parenthesis that opens before `at` and its own end."""
    depth, begin, quoted = 1, at, False
    while depth:
        char = text[at]
        if quoted:
            if char == "\\":
                at += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        at += 1
    return text[begin : at - 1]


def words_of(source):
    """Its literals one after another, ... for what is computed."""
    parts, last = [], 0
    for literal in re.finditer(r'"((?:[^"\\]|\\.)*)"', source):
        between = re.sub(r"\s|\bcat\(|std::string\(|[(),]", "", source[last : literal.start()])
        if between:
            parts.append("...")
        parts.append(literal.group(1).replace('\\"', '"').replace("\\\\", "\\"))
        last = literal.end()
    if re.sub(r"\s|[(),]", "", source[last:]) or not parts:
        parts.append("...")
    text = re.sub(r"(\.\.\.)+", "...", "".join(parts))
    text = re.sub(r"\\[nte]|\s+", " ", text).strip()
    return text if len(text) <= 90 else text[:87].rsplit(" ", 1)[0] + " ..."


def messages(path):
    text = re.sub(r"(?m)^\s*//.*$", "", path.read_text(encoding="utf-8"))
    text = re.sub(r'"\s*\n\s*"', "", text)  # literals over several lines
    for call in re.finditer(r"\bproblem\(", text):
        before = text[max(0, call.start() - 60) : call.start()]
        kind = re.findall(r"(" + "|".join(KINDS) + r")\(\s*$", before)
        words = words_of(argument(text, call.end()))
        if re.search(r"[A-Za-z]{3}", words.replace("...", "")):
            yield KINDS[kind[0]] if kind else "its caller's", words


def page():
    rows = set()
    for top in ("lib", "apps"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in {".cpp", ".h", ".cu"} and path.name != "error.h":
                where = path.relative_to(ROOT).parts
                rows |= {(kind, words, where[1] if top == "lib" else "apps") for kind, words in messages(path)}
    out = [HEAD]
    for kind, code in EXIT.items():
        of_kind = sorted((words, where) for one, words, where in rows if one == kind)
        title = f"{kind} error, exit code {code}" if code != "-" else "by whatever it is part of (several in one message, or a kind that the caller names)"
        out.append(f"\n## {title[0].upper()}{title[1:]}\n\n| the message begins | said by |\n|---|---|\n")
        out += [f"| `{words.replace('|', chr(92) + '|').replace('`', chr(39))}` | {where} |\n" for words, where in of_kind]
    return "".join(out)


def main():
    text = page()
    if sys.argv[1:] != ["--check"]:
        sys.stdout.write(text)
        return 0
    known = set((ROOT / "docs/messages.md").read_text(encoding="utf-8").splitlines())
    wanted = set(text.splitlines())
    for line in sorted(wanted - known):
        print(f"missing: {line}")
    for line in sorted(known - wanted):
        print(f"no longer said: {line}")
    if wanted != known:
        print("scripts/messages.py > docs/messages.md writes it anew")
    return wanted != known


if __name__ == "__main__":
    sys.exit(main())
