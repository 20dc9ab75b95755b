#!/usr/bin/env python3
"""Fails where a folder of lib/ includes one that is not of a lower level, or a library that is another folder's alone, where a file
is too long to be read in one sitting, and where a function is longer than a screen without a comment `// Long: reason` above it.

The levels are those of the design: an include may only go down. Run as a test; prints every offending line.
"""
import pathlib
import re
import sys

LEVELS = {
    "base": 0,
    "config": 1, "formats": 1, "random": 1, "tokenizer": 1, "device": 1,
    "sharding": 2, "kernels": 2, "chat_template": 2, "hub": 2, "report": 2, "launch": 2,
    "parameters": 3, "comm": 3, "data": 3,
    "tensor_parallel": 4, "optim": 4,
    "model": 5, "zero": 5, "checkpoint": 5, "metrics": 5,
    "planner": 6, "doctor": 6, "adapters": 6,
    "inference": 7,
    "train": 8,
}
# Headers that only the named folders may include; apps counts as a folder here.
ONLY = {
    r"(mpi|nccl)\.h": {"comm"},
    r"spdlog/.*": {"base"},
    r"yaml-cpp/.*": {"config"},
    r"CLI/.*": {"apps"},
    r"openssl/.*": {"base"},
}
NO_TORCH = {"base", "config", "formats", "random", "tokenizer", "chat_template", "data", "hub", "report", "launch"}
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
TORCH = re.compile(r"(ATen|torch|c10)/")
# Numbers come first: a quote between their digits begins no character.
NO_CODE = re.compile(
    r"""\b\d(?:'?[\w.])*|R"(\w*)\((?s:.*?)\)\1"|//[^\n]*|(?s:/\*.*?\*/)|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""")
SCOPE = re.compile(r"(^|\W)(namespace|class|struct|enum|union|extern)\b(?!.*[)]\s*(const|noexcept|override)?$)", re.S)


def long_functions(text: str):
    """(line, lines) of each body outside of any other that has more lines than a screen, and no `// Long: reason` above it."""
    lines = text.splitlines()
    code = NO_CODE.sub(lambda found: "0" + "\n" * found[0].count("\n") if found[0][0] != "/" else "\n" * found[0].count("\n"), text)
    code = re.sub(r"(?m)^[ \t]*#(?:.*\\\n)*.*$", lambda found: "\n" * found[0].count("\n"), code)
    open_braces, line, head, head_line = [], 1, "", 1  # a brace: is it a body, its line, the line where its head begins
    for character in code:
        if character == "\n":
            line += 1
        if character == "{":
            scope = SCOPE.search(head.strip()) or head.strip().endswith("=")
            inside = any(body for body, _, _ in open_braces)
            open_braces.append((not scope and not inside, line, head_line))
            head = ""
        elif character == "}" and open_braces:
            body, begin, first = open_braces.pop()
            if body and line - begin - 1 > MOST_LINES_OF_A_FUNCTION:
                above = first - 1
                while above > 0 and lines[above - 1].lstrip().startswith("//"):
                    above -= 1
                if not any("// Long: " in each for each in lines[above:begin]):
                    yield begin, line - begin - 1
            head = ""
        elif character == ";":
            head = ""
        else:
            if not head.strip():
                head_line = line
            head += character


def offences(root: pathlib.Path):
    sources = [p for top in ("lib", "apps") for p in sorted((root / top).rglob("*")) if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    if not sources:
        yield f"{root}: no source files found under lib/ and apps/"
    for path in sources:
        parts = path.relative_to(root).parts
        folder = parts[1] if parts[0] == "lib" else "apps"
        if folder != "apps" and folder not in LEVELS:
            yield f"{path.relative_to(root)}: lib/{folder} has no level in scripts/check_layers.py"
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > MOST_LINES:
            yield f"{path.relative_to(root)}: {len(lines)} lines, more than {MOST_LINES}: split it by what it does"
        for number, length in long_functions("\n".join(lines)):
            yield (f"{path.relative_to(root)}:{number}: a function of {length} lines, more than {MOST_LINES_OF_A_FUNCTION}: "
                   "split it, or say above it why not (// Long: reason)")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1) or match.group(2)
            where = f"{path.relative_to(root)}:{number}: includes {target}"
            other = target.split("/")[0] if "/" in target else ""  # <random> is no folder
            if folder != "apps" and other in LEVELS and other != folder and LEVELS[other] >= LEVELS[folder]:
                yield f"{where}: level {LEVELS[folder]} ({folder}) may include lower levels only, {other} is level {LEVELS[other]}"
            if folder in NO_TORCH and TORCH.match(target):
                yield f"{where}: lib/{folder} never includes torch"
            for pattern, owners in ONLY.items():
                if re.fullmatch(pattern, target) and folder not in owners:
                    yield f"{where}: only {', '.join(sorted(owners))} may include it"


def undocumented(root: pathlib.Path):
    """Folders whose row in the table of docs/architecture.md is missing or says another level."""
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d+) \|.*\| (yes|no) \|$", (root / "docs/architecture.md").read_text(encoding="utf-8"))
    documented = {(name, int(level), torch == "no") for name, level, torch in rows}
    for name, level in LEVELS.items():
        if (name, level, name in NO_TORCH) not in documented:
            torch = "no" if name in NO_TORCH else "yes"
            yield f"docs/architecture.md: the table of folders has no row | `{name}` | {level} | ... | {torch} |"
    for name, _, _ in sorted(documented):
        if name not in LEVELS:
            yield f"docs/architecture.md: there is no folder lib/{name}"


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    found = [*offences(root), *undocumented(root)]
    print("\n".join(found) if found else "layers: every include goes down, no file and no function is too long")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
