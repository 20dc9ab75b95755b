#!/usr/bin/env python3
"""Compares `tptrain tokenize` with the Hugging Face tokenizers library on random strings: ids with and without special tokens,
with special tokens as text, the tokens' spelling, and the text that the ids decode to.

  tokenizer_random.py --tptrain build/apps/tptrain/tptrain --tokenizer DIR [--count 1000000] [--seed 1]

DIR holds a tokenizer.json. Prints the strings that differ, at most 20, and how many were compared; exit code 1 where any
differ. Needs the Python package tokenizers, version 0.22.2: 0.23.3 decodes special tokens of Llama-2 with their space.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import threading

from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from tokenizer_strings import random_strings  # noqa: E402


def run_lines(command: list[str], lines: list[str]) -> list[dict]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        process.stdin.write("".join(line + "\n" for line in lines).encode())
        process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    answers = [json.loads(line) for line in process.stdout.read().decode().split("\n") if line]
    feeder.join()
    if process.wait() != 0 or len(answers) != len(lines):
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}, {len(answers)} answers to {len(lines)} lines")
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tptrain", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=20_000)
    args = parser.parse_args()

    path = pathlib.Path(args.tokenizer) / "tokenizer.json"
    library = Tokenizer.from_file(str(path))
    as_text = Tokenizer.from_file(str(path))
    as_text.encode_special_tokens = True
    added = [token["content"] for token in json.loads(path.read_text(encoding="utf-8"))["added_tokens"]]
    base = [args.tptrain, "tokenize", "--tokenizer", args.tokenizer]
    compared = different = 0

    def check(what: str, text: str, mine, theirs) -> None:
        nonlocal different
        if mine == theirs:
            return
        different += 1
        if different <= 20:
            print(f"{what} of {text!r}:\n  tptrain {mine}\n  library {theirs}", flush=True)

    strings = random_strings(args.count, args.seed, added)
    while True:
        texts = [text for _, text in zip(range(args.batch), strings)]
        if not texts:
            break
        lines = [json.dumps({"text": text}) for text in texts]
        with_special = run_lines(base, lines)
        plain = run_lines(base + ["--no-special"], lines)
        text_only = run_lines(base + ["--no-special", "--special-as-text"], lines)
        ids = [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)]
        decoded = run_lines(base + ["--decode"], [json.dumps({"ids": row}) for row in ids])
        full = library.encode_batch(texts)
        only_text = as_text.encode_batch(texts, add_special_tokens=False)
        for i, text in enumerate(texts):
            check("ids with special tokens", text, with_special[i]["ids"], full[i].ids)
            check("ids", text, plain[i]["ids"], ids[i])
            check("ids with special tokens as text", text, text_only[i]["ids"], only_text[i].ids)
            check("tokens", text, plain[i]["tokens"], [library.id_to_token(id) for id in ids[i]])
            check("text", text, decoded[i]["text"], library.decode(ids[i], skip_special_tokens=False))
        compared += len(texts)
        print(f"{compared} strings compared, {different} differences", flush=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
