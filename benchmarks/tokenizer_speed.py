#!/usr/bin/env python3
"""Encodes text files with bench_tokenizer_speed and with the Hugging Face tokenizers library, one thread each, in turn.

  PYTHON benchmarks/tokenizer_speed.py --bench build/cpu/benchmarks/bench_tokenizer_speed --tokenizer DIR [DIR ...] FILE ...

PYTHON is one that has the package tokenizers. A DIR holds a tokenizer.json. Prints a table in Markdown: MB/s (10^6 bytes a second
of processor time) of a file as one text at the first call and at the best of five, and of the same in documents of 64 lines
(the library: encode_batch_fast, which keeps no offsets, as ours keeps none; for one text it has encode alone).
"""
import argparse
import os
import pathlib
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402  the variables must stand before


def rate(size: int, repeats: int, call) -> float:
    best = 0.0
    for _ in range(repeats):
        begin = time.process_time()
        call()
        best = max(best, size / (time.process_time() - begin) / 1e6)
    return best


def documents_of(text: str) -> list[str]:
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + [lines[-1]]
    return ["".join(lines[i:i + 64]) for i in range(0, len(lines), 64)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--tokenizer", nargs="+", required=True)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    print(f"tokenizers {tokenizers.__version__}; MB/s of one thread: tptrain / library (ratio)\n")
    print("| tokenizer | file | one text, first call | one text, best of 5 | documents, best of 5 |\n|---|---|---|---|---|")
    for directory in args.tokenizer:
        for file in args.files:
            text = pathlib.Path(file).read_bytes().decode()
            size = len(text.encode())
            output = subprocess.run([args.bench, directory, file], check=True, capture_output=True, text=True).stdout
            ours = [float(field) for field in output.split("\t")[1:]]
            library = tokenizers.Tokenizer.from_file(str(pathlib.Path(directory) / "tokenizer.json"))
            documents = documents_of(text)
            theirs = [rate(size, 1, lambda: library.encode(text, add_special_tokens=False)),
                      rate(size, 5, lambda: library.encode(text, add_special_tokens=False)),
                      rate(size, 5, lambda: library.encode_batch_fast(documents, add_special_tokens=False))]
            cells = " | ".join(f"{a:.1f} / {b:.2f} ({a / b:.0f} x)" for a, b in zip(ours, theirs))
            print(f"| {pathlib.Path(directory).name} | {pathlib.Path(file).name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
