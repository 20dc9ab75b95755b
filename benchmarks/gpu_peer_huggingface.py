#!/usr/bin/env python3
"""Hugging Face transformers with torch.compile on one GPU, as a peer of bench_gpu_step: random weights and tokens, whole
optimizer steps, bf16 compute under autocast with fp32 weights and moments, fused AdamW, clipping at 1.0.

  python3 benchmarks/gpu_peer_huggingface.py --model DIR --seq-length 2048 --micro-batch-size 8 [--accumulation 8] [--lora-rank 16] [--no-compile]
DIR holds config.json. Needs torch and transformers, and peft for --lora-rank.
"""
import argparse
import time

import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seq-length", type=int, default=2048)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--lora-rank", type=int, default=0, help="PEFT's adapters on all linears of the layers beside bf16 weights that are frozen")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = True
    config = transformers.AutoConfig.from_pretrained(arguments.model)
    config.use_cache = False
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    if arguments.lora_rank > 0:
        import peft

        model = peft.get_peft_model(model.to(torch.bfloat16), peft.LoraConfig(
            task_type="CAUSAL_LM", r=arguments.lora_rank, lora_alpha=2 * arguments.lora_rank, target_modules="all-linear"))
        model.print_trainable_parameters()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    run = model if arguments.no_compile else torch.compile(model)
    ids = torch.randint(0, config.vocab_size, (arguments.micro_batch_size, arguments.seq_length), device="cuda")

    def step() -> None:
        for _ in range(arguments.accumulation):
            with torch.autocast("cuda", torch.bfloat16):
                loss = run(input_ids=ids, labels=ids).loss
            (loss / arguments.accumulation).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(arguments.warmup):
        step()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / arguments.steps
    tokens = arguments.micro_batch_size * arguments.seq_length * arguments.accumulation
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{'eager' if arguments.no_compile else 'torch.compile'}: {seconds * 1e3:.2f} ms a step, {tokens / seconds:,.0f} tokens/s, "
          f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
