#!/usr/bin/env python3
"""Golden numbers of tiny models, computed by transformers: what tests/golden/models holds.

    python scripts/golden/make_models.py tests/golden/models            # all cases
    python scripts/golden/make_models.py OUT --case NAME --config config.json [--seed N]

Needs torch, transformers and safetensors, which the program itself does not. Each case becomes a
complete Hugging Face directory (config.json, model.safetensors; random fp32 weights, norm weights
that are not 1, biases that are not 0) and a golden.safetensors:

    input_ids [B, T], logits [B, T, V], loss   one forward pass; loss: mean over the B * (T - 1) next tokens
    grad.NAME                                  gradient of that loss, before clipping; a tied table once
    train.input_ids [S, B, T]                  one batch a step; the first is input_ids
    train.loss [S], train.grad_norm [S]        of each step, before its update; the norm before clipping
    final.NAME                                 parameters after S steps

The S = 10 steps are AdamW: learning rate 1e-3, betas 0.9 and 0.95, eps 1e-8, decay 0.1 on parameters
of at least two dimensions, gradients scaled by min(1, 1 / (norm + 1e-6)).
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

STEPS, BATCH, LENGTH = 10, 4, 17
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
# Sizes that a tp size of 4 cuts unevenly or not at all (ffn 26, vocabulary 263), yet small files.
COMMON = dict(vocab_size=263, hidden_size=24, intermediate_size=26, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
CASES = {
    "qwen3": dict(COMMON, model_type="qwen3", head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6,
                  rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "mistral": dict(COMMON, model_type="mistral", head_dim=6, tie_word_embeddings=False, rms_norm_eps=1e-5,
                    sliding_window=None, rope_parameters=dict(rope_type="default", rope_theta=1e4)),
    "llama_linear": dict(COMMON, model_type="llama", tie_word_embeddings=False, rms_norm_eps=1e-5,
                         attention_bias=True, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=4.0)),
    "llama3_scaling": dict(COMMON, model_type="llama", tie_word_embeddings=True, rms_norm_eps=1e-5,
                           rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
                                                high_freq_factor=4.0, original_max_position_embeddings=16)),
    "qwen2": dict(COMMON, model_type="qwen2", tie_word_embeddings=True, rms_norm_eps=1e-6,
                  rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "gpt2": dict(model_type="gpt2", vocab_size=263, n_embd=24, n_head=4, n_layer=2, n_positions=40,
                 activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
}


def random_weights(model, generator):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.dim() >= 2 else 0.1
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight") or "ln_" in name and name.endswith("weight"):
                parameter.add_(1.0)


def save_training(name, out, model, trained, optimizer, vocab_size, generator):
    """Trains STEPS on random batches and writes golden.safetensors: `trained` are the parameters by the names that they get there."""
    batches = torch.randint(0, vocab_size, (STEPS, BATCH, LENGTH), generator=generator)
    batches[0, 0, 0], batches[0, 0, 1] = 0, vocab_size - 1
    golden = {"input_ids": batches[0], "train.input_ids": batches}
    losses, norms = [], []
    for step, ids in enumerate(batches):
        optimizer.zero_grad()
        result = model(input_ids=ids, labels=ids)
        result.loss.backward()
        if step == 0:
            golden["logits"], golden["loss"] = result.logits, result.loss
            golden |= {"grad." + n: p.grad.clone() for n, p in trained.items()}
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in trained.values()]))
        losses.append(result.loss)
        norms.append(norm)
        for p in trained.values():
            p.grad.mul_(min(1.0, float(1.0 / (norm + 1e-6))))
        optimizer.step()
    golden["train.loss"], golden["train.grad_norm"] = torch.stack(losses), torch.stack(norms)
    golden |= {"final." + n: p for n, p in trained.items()}
    save_file({k: v.detach().clone().contiguous() for k, v in golden.items()}, out / name / "golden.safetensors")
    print(f"{name}: {len(trained)} tensors, loss {losses[0]:.4f} -> {losses[-1]:.4f}")


def make(name, config, seed, out):
    settings = dict(config)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").train()
    generator = torch.Generator().manual_seed(seed)
    random_weights(model, generator)
    model.save_pretrained(out / name)
    (out / name / "generation_config.json").unlink(missing_ok=True)

    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)], **ADAMW)
    save_training(name, out, model, dict(model.named_parameters()), optimizer, config.vocab_size, generator)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--case", help="make this case alone")
    parser.add_argument("--config", type=pathlib.Path, help="its config.json, where it is none of the built-in ones")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cases = CASES
    if arguments.case:
        cases = {arguments.case: json.loads(arguments.config.read_text()) if arguments.config else CASES[arguments.case]}
    for i, (name, config) in enumerate(cases.items()):
        make(name, config, arguments.seed + i, arguments.out)


if __name__ == "__main__":
    main()
