#!/usr/bin/env python3
"""Runs what the README and docs/ tell a user to type, in a copy of the repository's layout.

  commands.py SOURCE_DIR TPTRAIN MPIRUN_DIR

Pages are README, CONTRIBUTING, benchmarks/README.md and docs/. Every line of their code blocks (four
spaces or an unnamed or sh fence), the examples of every --help and the commands in the heads of
configs/*.yaml are run as they stand, page by page, but for what NOT_RUN names with its reason; a block
that is no commands says what it is (```text). Stand-ins: models of two layers come from a hub of our
own, and trainings are cut short by further --set. Besides: each yaml block is a run file that `plan`
accepts, each `tptrain VERB --option` and each `section.key` in running text exists, each relative link
leads somewhere, each page of docs/ is linked from README or CONTRIBUTING, and README fits a terminal.
"""
import json
import math
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fetch"))
from hub_server import HubServer, Repository

COMMANDS = ("tptrain", "mpirun", "timeout", "echo", "export", "sbatch", "cmake", "ctest", "pip", "git", "python",
            "convert-hf-to-gguf", "llama-cli", "scripts/", "benchmarks/", "bench_gpu_step", "build/")
# The first words of what is not run here, and why.
NOT_RUN = {
    "pip": "needs the network",
    "git": "needs the network",
    "convert-hf-to-gguf": "llama.cpp's own",
    "llama-cli": "llama.cpp's own",
    "python scripts/golden/published_templates.py": "needs a folder of downloaded tokenizers",
    "scripts/": "sets up, builds or tests by itself, each by CI or by its own test; that it exists is checked",
    "benchmarks/": "measures for minutes; that it exists is checked",
    "python benchmarks/": "measures beside Python's libraries for minutes; that it exists is checked",
    "python3 benchmarks/": "measures for minutes; that it exists is checked",
    "bench_gpu_step": "needs GPUs",
    "mpirun -n 2 build/cuda/benchmarks/": "needs GPUs",
    "build/": "a binary that this test does not build",
    "cmake": "builds; that the preset exists is checked",
    "ctest": "runs tests; that the preset exists is checked",
    "sbatch": "needs Slurm (unit_scripts_sbatch runs the script)",
    "mpirun -n 2 --oversubscribe --bind-to none build/": "a benchmark",
    "mpirun -n 4 --oversubscribe build/cpu/tests/": "a test, which ctest runs",
    "mpirun -n 2 build/debug/": "needs a debugger and a screen",
    "mpirun -n 4 --oversubscribe --bind-to none build/": "a benchmark",
    "mpirun -n 4 tptrain --config run.yaml": "the line at the top of README: `plan` of the same file is run",
    "tptrain launch -n 8 --hosts": "needs two hosts (scripts/host_trials.py makes them)",
    "mpirun -n 8 tptrain --config configs/": "8 ranks of a large model: `plan` of the file is run instead",
    "tptrain export --checkpoint runs/qwen2-7b": "needs the training that was not run",
    "tptrain export --checkpoint runs/llama3-8b": "needs the training that was not run",
    "tptrain tokenize --tokenizer tokenizer.model": "no sentencepiece model is at hand",
}
SHORT = ["train.max_steps=100", "checkpoint.save_steps=50", "train.seq_length=16", "train.global_batch_size=4",
         "train.micro_batch_size=1", "train.device=cpu", "eval.max_batches=1", "eval.every_steps=0",
         "logging.every_steps=50", "scheduler.warmup_steps=1"]
SMALL = ["model.architecture={hidden_size: 24, intermediate_size: 32, num_hidden_layers: 2}"]
# What a run file must have, where a page shows a part of one.
BASE = {
    "run_dir": "run_dir: runs/part\n",
    "model": "model: {path: models/Qwen2.5-0.5B}\n",
    "data": "data: {train: [held_out.txt]}\n",
    "train": "train: {max_steps: 1}\n",
}

failures = []
reasons_used = set()


def fail(place, text):
    failures.append(f"{place}: {text}")


def blocks_of(text):
    """(line, language, lines) of each code block; language is None of an indented one."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        fence = re.match(r"```(\w*)$", lines[at])
        if fence:
            end = at + 1
            while end < len(lines) and lines[end] != "```":
                end += 1
            yield at + 2, fence.group(1), lines[at + 1 : end]
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip() or lines[at - 1].startswith("#")):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield at + 1, None, [line[4:] for line in lines[at:end]]
            at = end
        else:
            at += 1


def commands_of(place, lines):
    """Of a block of commands; a line that is none is a fault of the page."""
    joined = "\n".join(lines).replace("\\\n", " ")
    commands = [line.strip() for line in joined.split("\n") if line.strip() and not line.startswith("#")]
    for command in commands:
        if not without_variables(command).startswith(COMMANDS):
            fail(place, f"`{command}` begins with no command that this test knows; output and pictures stand in a ```text block")
    return commands


def without_variables(command):
    """`LAUNCHER=mpirun sbatch ...`: the command itself."""
    return re.sub(r"^(\w+=\S+ +)+", "", command)


def spans_of(text):
    """Inline code outside of code blocks."""
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    return re.findall(r"`([^`\n]+)`", prose)


def byte_tokenizer():
    """A tokenizer.json of 256 bytes and an end of text, in GPT-2's alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            alphabet[byte] = chr(byte)
        else:
            alphabet[byte], extra = chr(256 + extra), extra + 1
    vocab = {alphabet[byte]: byte for byte in range(256)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": []},
    }


def write_model(directory, family):
    """A model of two layers with random weights, as a download leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    hidden, ffn, heads, kv, vocab, layers = 16, 32, 8, 4, 264, 2
    head = hidden // heads
    config = {
        "model_type": family, "architectures": ["Qwen2ForCausalLM" if family == "qwen2" else "LlamaForCausalLM"],
        "hidden_act": "silu", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "max_position_embeddings": 8192,
        "initializer_range": 0.02, "eos_token_id": 256,
    }
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
    for layer in (f"model.layers.{i}." for i in range(layers)):
        for name, rows in (("q", heads * head), ("k", kv * head), ("v", kv * head)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = [rows, hidden]
            if family == "qwen2":
                shapes[f"{layer}self_attn.{name}_proj.bias"] = [rows]
        shapes |= {
            f"{layer}self_attn.o_proj.weight": [hidden, heads * head], f"{layer}mlp.gate_proj.weight": [ffn, hidden],
            f"{layer}mlp.up_proj.weight": [ffn, hidden], f"{layer}mlp.down_proj.weight": [hidden, ffn],
            f"{layer}input_layernorm.weight": [hidden], f"{layer}post_attention_layernorm.weight": [hidden],
        }
    draw = random.Random(1)
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, shape in shapes.items():
        values = [1.0 if "norm" in name else draw.gauss(0, 0.02) for _ in range(math.prod(shape))]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += struct.pack(f"<{len(values)}f", *values)
    head_text = json.dumps(header).encode()
    head_text += b" " * (-len(head_text) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head_text)) + head_text + data)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"}))


def hub_of_models(directory):
    """A hub of our own with what the pages fetch."""
    repositories = {"Salesforce/wikitext": Repository({"wikitext-2-raw-v1/a.jsonl": b'{"text": "Rain fell."}\n'}, kind="datasets")}
    for name in ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2-7B", "meta-llama/Meta-Llama-3-8B"):
        write_model(directory / name, "llama" if "lama" in name else "qwen2")
        files = {path.name: path.read_bytes() for path in (directory / name).iterdir()}
        repositories[name] = Repository(files, ["model.safetensors"])
    return HubServer(repositories)


def write_executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Workplace:
    """The repository's folders by links, the program where a build leaves it, and what pages take for given."""

    def __init__(self, source, program, mpirun_dir, directory):
        self.source, self.program, self.path = source, program, directory
        for entry in ("README.md", "CONTRIBUTING.md", "apps", "benchmarks", "configs", "docs", "lib", "scripts",
                      "tests", "third_party"):
            (directory / entry).symlink_to(source / entry)
        cut = " ".join(f"--set '{value}'" for value in SHORT)
        small = " ".join(f"--set '{value}'" for value in SMALL)
        wrapper = f"""#!/bin/bash
more=()
if [ "$1" = --config ] || [ "$1" = launch ]; then
  more=({cut})
  [[ "$*" != *configs/quickstart.yaml* ]] || more+=({small})
fi
exec "{program}" "$@" "${{more[@]}}"
"""
        for preset in ("cpu", "cuda"):
            write_executable(directory / f"build/{preset}/bin/tptrain", wrapper)
        self.hub = hub_of_models(directory / "hub")
        self.environment = dict(os.environ, PATH=f"{directory}/build/cpu/bin:{mpirun_dir}:" + os.environ["PATH"],
                                HF_ENDPOINT=self.hub.endpoint, HF_HOME=str(directory / "hub"), OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1",
                                OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                                OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1")
        self.write("held_out.txt", "The lobster is blue and lives near the coast.\n" * 40)
        self.write("test.txt", "In 1969 the ship came home.\n" * 40)
        self.write("corpus/a.txt", "Rain fell on the hills for nine days.\n" * 400)
        row = json.dumps({"text": "Rain fell on the hills for nine days."}) + "\n"
        for name in ("test/a.jsonl", "more.jsonl", "sft.jsonl", "held_out.jsonl"):
            self.write(name, row * 200)
        self.write("data/chat.jsonl", '{"messages": [{"role": "user", "content": "Hello"}]}\n')
        self.write("ids.jsonl", '{"ids": [1, 2]}\n')
        self.write("run.yaml", next("\n".join(lines) for _, language, lines in
                                    blocks_of((source / "README.md").read_text())
                                    if language == "yaml" and lines[0].startswith("run_dir")))
        write_model(directory / "models/Qwen2.5-0.5B", "qwen2")
        (directory / "Qwen2.5-0.5B").symlink_to("models/Qwen2.5-0.5B")
        (directory / "DIR").symlink_to("models/Qwen2.5-0.5B")
        shutil.copy(directory / "models/Qwen2.5-0.5B/model.safetensors", directory / "model-00001-of-00004.safetensors")
        (directory / "runs").mkdir()
        (directory / "runs/a").symlink_to("qwen2.5-0.5b")  # the run that README makes

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def shell(self, script):
        result = subprocess.run(["bash", "-c", script], cwd=self.path, env=self.environment, timeout=1200,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return result.returncode, result.stdout

    def tool(self, *arguments):
        result = subprocess.run([self.program, *arguments], cwd=self.path, env=self.environment, timeout=600,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return result.returncode, result.stdout


def is_run(command):
    reasons = [words for words in NOT_RUN if without_variables(command).startswith(words)]
    reasons_used.update(reasons)
    return not reasons


def check_not_run(place, command, presets, source):
    for word in command.split():
        if re.match(r"(scripts|benchmarks|configs)/", word) and not (source / word).exists():
            fail(place, f"`{command}` names {word}, which is not there")
    preset = re.search(r"--preset (\w+)", command)
    if preset and preset.group(1) not in presets:
        fail(place, f"`{command}` names a preset that is not in CMakePresets.json")


def run_commands(workplace, place, commands, presets):
    """One shell for the commands of a page, so that what one exports serves the next. What an earlier page wrote with
    `tptrain export` is removed: each page begins as its reader does."""
    script = ["set -eu -o pipefail"]
    for command in commands:
        written = re.search(r"tptrain export .*--out (\S+)", command)
        if written and is_run(command):
            shutil.rmtree(workplace.path / written.group(1), ignore_errors=True)
    for command in commands:
        if is_run(command):
            script += [f"printf '\\n== %s\\n' {json.dumps(command.replace('$', ''))}", command]
        else:
            check_not_run(place, command, presets, workplace.source)
    code, output = workplace.shell("\n".join(script))
    if code != 0:
        fail(place, f"exit code {code}\n" + "\n".join(output.split("\n")[-40:]))
    return sum(is_run(command) for command in commands)


def check_yaml(workplace, place, lines):
    text = "\n".join(lines) + "\n"
    given = {line.split(":")[0] for line in lines if re.match(r"[a-z_]+:", line)}
    whole = text + "".join(part for name, part in BASE.items() if name not in given)
    workplace.write("part.yaml", whole)
    sets = []
    if "max_steps" not in whole:
        sets += ["--set", "train.max_steps=1"]
    if not re.search(r"\btrain: *[\[{\"]|\n  train:", whole.split("data:", 1)[-1]):
        sets += ["--set", "data.train=[held_out.txt]"]
    code, output = workplace.tool("plan", "--config", "part.yaml", *sets)
    if code != 0:
        fail(place, f"plan refuses this run file:\n{output}")


def check_page(workplace, page, helps, keys):
    text = (workplace.source / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = ((workplace.source / page).parent / path) if path else workplace.source / page
        if not file.exists():
            fail(page, f"the link {target} leads nowhere")
        elif anchor and file.suffix == ".md":
            heads = re.findall(r"(?m)^#+ (.*)$", file.read_text())
            known = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            if anchor not in known:
                fail(page, f"the link {target} names no heading")
    sections = sorted({key.split(".")[0] for key in keys})
    for span in spans_of(text):
        words = span.split()
        if "tptrain" in words:
            words = words[words.index("tptrain") + 1 :]
            verb = words[0] if words and words[0] in helps else "train"
            for option in (word.split("=")[0] for word in words if word.startswith("--")):
                if option not in helps[verb] and option not in ("--help", "--version") and "." not in option:
                    fail(page, f"`{span}`: tptrain {verb} has no {option}")
        key = re.match(rf"((?:{'|'.join(sections)})\.[a-z_.]+)(?:[:=].*)?$", span)
        is_file = span.endswith((".safetensors", ".json", ".yaml", ".h", ".cpp"))
        if key and not is_file and key.group(1) not in keys:
            fail(page, f"`{span}`: {key.group(1)} is no key of a run file")


def check_readme(source, pages):
    text = (source / "README.md").read_text()
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > 100:
            fail(f"README.md:{number}", f"{len(line)} columns are more than 100")
    linked = text + (source / "CONTRIBUTING.md").read_text()
    for page in pages:
        if page.startswith("docs/") and f"]({page})" not in linked:
            fail(page, "neither README nor CONTRIBUTING.md links it")


def check_troubleshooting(source):
    """Each phrase under "From tptrain" is one that the program can say."""
    words = ""
    for path in [*(source / "lib").rglob("*.cpp"), *(source / "lib").rglob("*.h"), *(source / "apps").rglob("*.cpp"),
                 *(source / "apps").rglob("*.h")]:
        words += re.sub(r'"\s*\n\s*"', "", path.read_text()).replace('\\"', '"')
    page = "docs/troubleshooting.md"
    section = (source / page).read_text().split("## From tptrain")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (`.*?) \|", section)
    for phrase in re.findall(r"`([^`]+)`", "\n".join(rows)):
        if phrase not in words:
            fail(page, f"tptrain nowhere says `{phrase}`")


def keys_of(workplace):
    keys, section = set(), ""
    for line in workplace.tool("schema", "--markdown")[1].split("\n"):
        head = re.match(r"## `([a-z_.]+)`", line)
        if head:
            section = head.group(1)
            keys.add(section)
        row = re.match(r"\| `([a-z_]+)` \|", line)
        if row and section:
            keys.add(f"{section}.{row.group(1)}")
    return keys


def main(source, program, mpirun_dir):
    source = pathlib.Path(source)
    presets = {preset["name"] for preset in json.loads((source / "CMakePresets.json").read_text())["configurePresets"]}
    with tempfile.TemporaryDirectory(prefix="tptrain-docs-") as directory:
        workplace = Workplace(source, program, mpirun_dir, pathlib.Path(directory))
        verbs = re.findall(r"(?m)^  (\w+) +\w", workplace.tool("--help")[1].split("Verbs")[1].split("Examples")[0])
        helps = {verb: workplace.tool(verb, "--help")[1] for verb in verbs}
        keys = keys_of(workplace)
        pages = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *sorted(f"docs/{page.name}" for page in (source / "docs").glob("*.md"))]
        count = 0
        check_readme(source, pages)
        check_troubleshooting(source)
        for page in pages:
            check_page(workplace, page, helps, keys)
            commands = []
            for line, language, lines in blocks_of((source / page).read_text()):
                if language == "yaml":
                    check_yaml(workplace, f"{page}:{line}", lines)
                elif language in (None, "", "sh", "bash") and page != "docs/tutorial.md":  # e2e_docs_tutorial types it to the letter
                    commands += commands_of(f"{page}:{line}", lines)
            count += run_commands(workplace, page, commands, presets)
        for verb, text in helps.items():
            examples = text.split("Examples:\n", 1)[-1].split("\n") if "Examples:\n" in text else []
            place = f"tptrain {verb} --help"
            count += run_commands(workplace, place, commands_of(place, examples), presets)
        for config in sorted((source / "configs").glob("*.yaml")):
            head = [line[4:] for line in config.read_text().split("\n") if line.startswith("#   ")]
            place = f"configs/{config.name}"
            count += run_commands(workplace, place, commands_of(place, head), presets)
    for words in sorted(set(NOT_RUN) - reasons_used):
        fail("NOT_RUN", f"no page has a command that begins with `{words}`")
    print("\n".join(failures) if failures else f"{count} commands ran")
    if count < 30:  # nothing found is nothing checked
        sys.exit(f"only {count} commands were found")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
