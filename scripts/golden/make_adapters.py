#!/usr/bin/env python3
"""Golden numbers of LoRA adapters, computed by PEFT on transformers: what tests/golden/adapters holds.

    python scripts/golden/make_adapters.py tests/golden/models tests/golden/adapters [--case NAME]

Needs torch, transformers, peft and safetensors, which the program itself does not. Each case is a PEFT
directory (adapter_config.json, adapter_model.safetensors; B random, not zero, so that A has a gradient)
on one of the golden models, and a golden.safetensors:

    input_ids [B, T], logits [B, T, V], loss   one forward pass; loss: mean over the B * (T - 1) next tokens
    grad.NAME                                  gradient of that loss, before clipping, of what trains
    train.input_ids [S, B, T]                  one batch a step; the first is input_ids
    train.loss [S], train.grad_norm [S]        of each step, before its update; the norm before clipping
    final.NAME                                 what trains, after S steps

NAME is that of adapter_model.safetensors; a tied table stands under its embedding's name alone. The steps
are those of make_models.py. base_model_name_or_path is the name of the golden model.
"""
import argparse
import json
import os
import pathlib
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from make_models import ADAMW, save_training

CASES = {
    "llama": dict(base="llama_linear", r=4, lora_alpha=8, target_modules="all-linear", modules_to_save=["lm_head", "embed_tokens"]),
    "qwen2": dict(base="qwen2", r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
    "qwen3": dict(base="qwen3", r=4, lora_alpha=16, target_modules="all-linear", modules_to_save=["embed_tokens"],
                  ensure_weight_tying=True),
    "gpt2": dict(base="gpt2", r=4, lora_alpha=8, target_modules="all-linear"),
}


def stored_name(name):
    """Of a parameter in adapter_model.safetensors."""
    return name.replace(".modules_to_save.default", "").replace(".default", "")


def make(models, out, name, settings, seed):
    settings = dict(settings)
    base = settings.pop("base")
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(models / base, dtype=torch.float32, attn_implementation="eager")
    vocab_size = model.config.vocab_size
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)).train()
    trained = {stored_name(n): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for n, p in trained.items():
            if "lora_B" in n:
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
            elif "lora_A" not in n:
                p.add_(0.05 * torch.randn(p.shape, generator=generator))
    model.save_pretrained(out / name)
    (out / name / "README.md").unlink()
    config_path = out / name / "adapter_config.json"
    config = json.loads(config_path.read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    config_path.write_text(json.dumps(config, indent=2) + "\n")

    optimizer = torch.optim.AdamW(trained.values(), weight_decay=0.1, **ADAMW)
    save_training(name, out, model, trained, optimizer, vocab_size, generator)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--case", choices=CASES, help="make this case alone")
    arguments = parser.parse_args()
    for i, (name, settings) in enumerate(CASES.items()):
        if arguments.case in (None, name):
            make(arguments.models, arguments.out, name, settings, seed=i + 1)


if __name__ == "__main__":
    main()
