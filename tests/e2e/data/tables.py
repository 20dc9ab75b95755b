#!/usr/bin/env python3
"""Rows of JSON lines, of Parquet files as the hub has them, and of a folder that `datasets` saved are one data set: the same tokens and labels,
and the same training of two ranks. A damaged file is refused. Of the libraries that Arrow carries within its own the program takes none. A program without Arrow says how it gets it.
  tables.py TPTRAIN MPIRUN TABLES with|without"""
import json, os, pathlib, re, shutil, subprocess, sys, tempfile

program, mpirun, tables, arrow = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).absolute(), sys.argv[4]
RUN_FILE = """run_dir: run
model: {architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 4}}
data: {train: [rows.jsonl], chat_template: chat.jinja, packing: best_fit, document_mask: true}
train: {seq_length: 512, global_batch_size: 2, max_steps: 3, device: cpu}
optimizer: {learning_rate: 1.0e-3}
"""
TEMPLATE = """{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% endif %}
{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}</s>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
SOURCES = {"lines": tables / "rows.jsonl", "hub": tables / "hub", "glob": tables / "hub/data/*.parquet", "saved": tables / "saved"}
directory = pathlib.Path(tempfile.mkdtemp(prefix="tptrain-tables-"))
(directory / "run.yaml").write_text(RUN_FILE)
(directory / "chat.jinja").write_text(TEMPLATE)


def start(command, name, path):
    return subprocess.run([*command, "--config", "run.yaml", "--set", f"run_dir={name}", "--set", f"data.train=[{path}]"], cwd=directory, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def prepared(name, path):
    """The tokens and labels that are trained on, and what was printed."""
    ran = start([program, "prepare"], name, path)
    assert ran.returncode == 0, (name, ran.stdout)
    tokens, = (directory / name / "data").glob("train-*.bin")
    return tokens.read_bytes(), ran.stdout


def losses(name, path):
    ran = start([mpirun, "--oversubscribe", "-n", "2", program], name, path)
    assert ran.returncode == 0, (name, ran.stdout)
    lines = [json.loads(line) for line in open(directory / name / "metrics.jsonl")]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def check_bindings():
    """Arrow's libraries export the simdjson and the OpenSSL that are built into them: bound to those, rows of JSON crash."""
    said = subprocess.run([program + "-program", "--version"], env={**os.environ, "LD_BIND_NOW": "1", "LD_DEBUG": "bindings"}, text=True,
                          errors="replace", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr
    bound = re.findall(r"binding file \S*tptrain-program \[0\] to (\S+) \[0\]: normal symbol `([^']+)'", said)
    from_arrow = {symbol for file, symbol in bound if re.search("lib(arrow|parquet)", file)}
    foreign = {symbol for symbol in from_arrow if not re.search("arrow|parquet", symbol)}
    assert from_arrow and not foreign, (len(bound), len(from_arrow), sorted(foreign))
    assert any("simdjson" in symbol for file, symbol in bound if "libsimdjson" in file), len(bound)
    return len(from_arrow)


if arrow == "with":
    taken = check_bindings()
    wanted, _ = prepared("lines", SOURCES["lines"])
    for name in ("hub", "glob", "saved"):
        tokens, said = prepared(name, SOURCES[name])
        assert tokens == wanted, (name, len(tokens), len(wanted))
        if name != "glob":  # what lies beside the rows is named, not trained on
            assert ("README.md" if name == "hub" else "dataset_info.json") in said, said
    curve = losses("lines", SOURCES["lines"])
    assert len(curve) == 3 and all(line == other for line, other in zip(curve, losses("saved", SOURCES["saved"]), strict=True)), curve
    whole = (tables / "hub/data/train-00000-of-00002.parquet").read_bytes()
    for what, damaged in (("cut", whole[: len(whole) // 2]), ("footer", whole[:-40] + b"\xff" * 32 + whole[-8:])):
        (directory / f"{what}.parquet").write_bytes(damaged)
        refused = start([program, "prepare"], what, f"{what}.parquet")
        assert refused.returncode == 3 and f"{what}.parquet: the file cannot be read" in refused.stdout, (what, refused.returncode, refused.stdout)
    print(f"{len(wanted):,} bytes of tokens and labels alike from lines, Parquet and a folder of datasets; {len(curve)} equal steps; "
          f"of Arrow's libraries {taken} symbols, all its own")
else:
    for name in ("hub", "saved"):
        refused = start([program, "prepare"], name, f"{SOURCES[name]}/{'data/*.parquet' if name == 'hub' else '*.arrow'}")
        assert refused.returncode == 3 and "scripts/setup.sh --parquet" in refused.stdout, (name, refused.returncode, refused.stdout)
    print("without Arrow: how Parquet is refused, and nothing more, was looked at (scripts/setup.sh --parquet)")
shutil.rmtree(directory)
