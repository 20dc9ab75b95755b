#!/usr/bin/env python3
"""An exported directory in transformers against the program: the same greedy text, the same loss.

    python scripts/golden/check_export.py --program build/cpu/bin/tptrain --model EXPORTED
        [--checkpoint RUN] [--prompt TEXT ...] [--text FILE] [--new-tokens 40] [--seq-length 256]

With --checkpoint the program generates from the run that was exported, else from the directory too.
Greedy text stops being comparable where two tokens are equally likely within rounding: the first
difference is shown with the margin between the two likeliest tokens there.
Exit code 0: all agree. Needs torch and transformers, which the program itself does not.
"""
import argparse
import json
import math
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def program(arguments, *more):
    result = subprocess.run([arguments.program, *more], capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(more)}\n{result.stderr.decode(errors='replace')}")
    return result.stdout.decode(errors="replace")


def compare_text(arguments, model, tokenizer, prompt):
    source = ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else ["--model", arguments.model]
    ours = program(arguments, "generate", *source, "--prompt", prompt, "--max-new-tokens", str(arguments.new_tokens))
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        output = model.generate(ids, max_new_tokens=arguments.new_tokens, do_sample=False, output_logits=True,
                                return_dict_in_generate=True)
    theirs = prompt + tokenizer.decode(output.sequences[0, ids.shape[1]:], skip_special_tokens=True)
    if ours.rstrip("\n") == theirs.rstrip("\n"):
        print(f"same   {theirs!r}")
        return True
    margins = [float(l[0].topk(2).values.diff().abs()) for l in output.logits]
    if min(margins) < 1e-4:
        print(f"a tie  {prompt!r}: two tokens {min(margins):.1e} apart")
        return True
    print(f"OTHER  {prompt!r}\n  program      {ours!r}\n  transformers {theirs!r}\n  least margin {min(margins):.3g}")
    return False


def compare_loss(arguments, model, tokenizer):
    """Over windows as `tptrain evaluate` cuts them: each token but the first predicted once."""
    source = ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else ["--model", arguments.model]
    ours = json.loads(program(arguments, "evaluate", *source, "--data", arguments.text, "--packing", "none",
                              "--seq-length", str(arguments.seq_length), "--json"))
    text = open(arguments.text, encoding="utf-8", newline="").read()
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    if int(ids[-1]) != tokenizer.eos_token_id:
        ids = torch.cat([ids, torch.tensor([tokenizer.eos_token_id])])
    total, count = 0.0, 0
    with torch.no_grad():
        for begin in range(0, len(ids) - 1, arguments.seq_length):
            window = ids[begin:begin + arguments.seq_length + 1]
            logits = model(window[None, :-1]).logits[0].double()
            total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            count += len(window) - 1
    theirs = total / count
    print(f"loss   program {ours['loss']:.7f} over {ours['target_tokens']} tokens, transformers {theirs:.7f} over {count}"
          f" (perplexity {math.exp(theirs):.3f})")
    return ours["target_tokens"] == count and abs(ours["loss"] / theirs - 1) < 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--prompt", nargs="*", default=["The game", "In 1944 the", "He said that"])
    parser.add_argument("--text")
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--seq-length", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    good = [compare_text(arguments, model, tokenizer, prompt) for prompt in arguments.prompt]
    if arguments.text:
        good.append(compare_loss(arguments, model, tokenizer))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
