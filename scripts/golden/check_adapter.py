#!/usr/bin/env python3
"""Compares an exported adapter and a merged model with each other, as PEFT and transformers load them.

    python scripts/golden/check_adapter.py --base DIR --adapter DIR [--merged DIR] [--tolerance 1e-4]

Needs torch, transformers and peft. Loads the adapter with PeftModel.from_pretrained on the base, lists what
PEFT finds missing or does not know, and compares the logits of random tokens: with the base's (an adapter that
changes nothing proves nothing), and with those of the merged model. Exits with 1 where anything differs.
"""
import argparse
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--merged")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()

    def load(directory):
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()

    model = load(arguments.base)
    ids = torch.randint(0, model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        of_base = model(ids).logits
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, arguments.adapter).eval()
        for warning in caught:
            print("PEFT warns:", str(warning.message)[:300])
        logits = adapted(ids).logits
        failed = any("missing" in str(w.message).lower() or "unexpected" in str(w.message).lower() for w in caught)
        change = (logits - of_base).abs().max().item()
        print(f"the adapter changes logits by up to {change:.6f}")
        failed |= change == 0
        if arguments.merged:
            difference = (load(arguments.merged)(ids).logits - logits).abs().max().item()
            print(f"merged and adapted logits differ by up to {difference:.2e}")
            failed |= not difference <= arguments.tolerance
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
