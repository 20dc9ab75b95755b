#!/usr/bin/env python3
"""`tptrain prepare` beside the Hugging Face tokenizers library, on the same rows with the same threads, in turn.

  PYTHON benchmarks/prepare_speed.py --tptrain build/cpu/bin/tptrain --tokenizer DIR [--threads 2] [--runs 3] ROWS.jsonl

PYTHON is one that has the packages tokenizers and numpy. Both sides do the whole work, from a file of rows {"text": ...} to a file
of ids: read, parse, encode, add the end of each text, write. The library's side is what its users write: json.loads, batches of
1,000 rows through encode_batch_fast (which keeps no offsets), ids as uint32 by numpy; its threads are its own. tptrain also hashes
its input twice and its output once, and makes the file durable. Processes are pinned to as many cores as threads. Prints a table in
Markdown: seconds of the wall and of processors (medians), MB/s (10^6 bytes of rows a second of the wall), and the ratios.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PEER = """
import json, sys
import numpy
import tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
end = int(sys.argv[4])
count = 0
with open(sys.argv[2], "rb") as rows, open(sys.argv[3], "wb") as out:
    def write(texts):
        global count
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=True):
            ids = encoding.ids
            ids.append(end)
            count += len(ids)
            out.write(numpy.array(ids, dtype=numpy.uint32).tobytes())
    batch = []
    for line in rows:
        batch.append(json.loads(line)["text"])
        if len(batch) == 1000:
            write(batch)
            batch = []
    if batch:
        write(batch)
print(count)
"""

RUN = """
run_dir: {folder}/run
model: {{architecture: {{model_type: llama, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1, num_attention_heads: 4}}}}
data: {{train: ["{rows}"], tokenizer: "{tokenizer}", format: jsonl}}
train: {{max_steps: 1}}
"""


def timed(command, cores, environment):
    """Seconds of the wall and of processors, and what it printed."""
    def pin():
        os.sched_setaffinity(0, cores)
    before = os.times()
    begin = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, preexec_fn=pin).stdout
    wall = time.perf_counter() - begin
    after = os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system, output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tptrain", required=True)
    parser.add_argument("--tokenizer", required=True, help="a folder with tokenizer.json")
    parser.add_argument("--end", type=int, default=151643, help="id of the end of text, for the library's side (Qwen's)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("rows")
    args = parser.parse_args()
    import tokenizers  # for its version: a missing package is said before the work

    cores = sorted(os.sched_getaffinity(0))[:args.threads]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "true"}
    megabytes = os.path.getsize(args.rows) / 1e6
    ours, theirs = [], []
    tokens = set()
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory(dir=pathlib.Path(args.rows).parent) as folder:
            run = pathlib.Path(folder) / "run.yaml"
            run.write_text(RUN.format(folder=folder, rows=os.path.abspath(args.rows), tokenizer=os.path.abspath(args.tokenizer)))
            wall, cpu, output = timed([args.tptrain, "prepare", "--config", str(run)], cores, environment)
            ours.append((wall, cpu))
            tokens.add(int(output.split("train: ")[1].split(" tokens")[0].replace(",", "")))
            wall, cpu, output = timed([sys.executable, "-c", PEER, args.tokenizer + "/tokenizer.json", args.rows,
                                       str(pathlib.Path(folder) / "ids.bin"), str(args.end)], cores, environment)
            theirs.append((wall, cpu))
            tokens.add(int(output))
    if len(tokens) != 1:
        print(f"the two sides give other numbers of tokens: {sorted(tokens)}", file=sys.stderr)
        return 1
    print(f"tokenizers {tokenizers.__version__}; {args.threads} threads; {megabytes:.1f} MB of rows, {tokens.pop():,} tokens; "
          f"medians of {args.runs}, in turn\n")
    print("| | wall, s | processors, s | MB/s |\n|---|---|---|---|")
    for name, times in (("tptrain prepare", ours), ("tokenizers", theirs)):
        wall, cpu = (statistics.median(column) for column in zip(*times))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {megabytes / wall:.1f} |")
    ratios = [[b[i] / a[i] for a, b in zip(ours, theirs)] for i in (0, 1)]
    print(f"\nratio by pairs, wall: {statistics.median(ratios[0]):.1f} ({min(ratios[0]):.1f} to {max(ratios[0]):.1f}), "
          f"processors: {statistics.median(ratios[1]):.1f} ({min(ratios[1]):.1f} to {max(ratios[1]):.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
