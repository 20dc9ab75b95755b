"""Gradients in FP8 and in bf16 at the same weights and on the same data, along a training.

    python3 benchmarks/fp8_same_weights.py RUN_DIR --config configs/quickstart.yaml [--set KEY=VALUE]... [--steps 4]

RUN_DIR holds checkpoints of a training in bf16 (checkpoint.save_steps, checkpoint.keep 0). From each
of them the program goes on for some steps at a learning rate that moves nothing, once a variant, so
that every step's gradient is taken at the checkpoint's weights. Printed: the norm of the gradient in
each variant over that in bf16, and, by kind of tensor and by layer, norm and direction of the last
step's gradient, which is what AdamW keeps as its first moment where beta1 is 0.
"""

import argparse
import array
import collections
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

VARIANTS = {
    "bf16": {"train.dtype": "bf16"},
    "fp32": {"train.dtype": "fp32"},
    "fp8": {"train.dtype": "bf16", "train.fp8": "on"},
}
STANDING = {  # a learning rate that changes no bit, and gradients that are neither cut nor averaged
    "optimizer.learning_rate": "1e-30",
    "optimizer.weight_decay": "0",
    "optimizer.max_grad_norm": "0",
    "optimizer.betas": "[0.0, 0.95]",
    "scheduler.type": "constant",
    "scheduler.min_lr": "0",
    "checkpoint.save_steps": "0",
    "checkpoint.async": "false",
    "eval.every_steps": "0",
    "logging.every_steps": "1",
}


def gradients(checkpoint):
    """First moments of a checkpoint by tensor, whatever the number of its ranks."""
    found = collections.defaultdict(lambda: array.array("f"))
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with open(shard, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            for key, entry in header.items():
                kind, _, name = key.partition("/")
                if kind != "exp_avg":
                    continue
                begin, end = entry["data_offsets"]
                file.seek(8 + size + begin)
                values = array.array("f")
                values.frombytes(file.read(end - begin))
                found[name.split("#")[0]].extend(values)
    return found


def run(args, checkpoint, step, variant, run_dir):
    settings = {**STANDING, **VARIANTS[variant], "run_dir": str(run_dir), "train.max_steps": str(step + args.steps),
                "checkpoint.resume": str(checkpoint)}
    command = args.launch.split() + [args.program, "--config", args.config]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    for setting in args.set:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-3000:]}")
    rows = [json.loads(line) for line in open(run_dir / "metrics.jsonl")]
    rows = [row for row in rows if "grad_norm" in row]
    last = max((run_dir / "checkpoints").glob("step-*"))
    return {"loss": [row["loss"] for row in rows], "norm": [row["grad_norm"] for row in rows], "gradient": gradients(last)}


def sums(a, b):
    return math.sumprod(a, b) if hasattr(math, "sumprod") else sum(x * y for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=pathlib.Path)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--program", default="build/cpu/bin/tptrain")
    parser.add_argument("--launch", default="", help="such as 'mpirun -n 4'")
    parser.add_argument("--variants", nargs="+", default=["fp8", "fp32"], choices=[v for v in VARIANTS if v != "bf16"])
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ratios = {variant: [] for variant in args.variants}
    losses = {variant: [] for variant in args.variants}
    groups = {variant: collections.defaultdict(lambda: [0.0, 0.0, 0.0]) for variant in args.variants}
    for checkpoint in sorted((args.run_dir / "checkpoints").glob("step-????????")):
        step = int(checkpoint.name[5:])
        with tempfile.TemporaryDirectory() as scratch:
            base = run(args, checkpoint, step, "bf16", pathlib.Path(scratch) / "bf16")
            for variant in args.variants:
                own = run(args, checkpoint, step, variant, pathlib.Path(scratch) / variant)
                ratio = [a / b for a, b in zip(own["norm"], base["norm"], strict=True)]
                ratios[variant] += ratio
                losses[variant] += [a / b for a, b in zip(own["loss"], base["loss"], strict=True)]
                print(f"step {step}, {variant}: norm over bf16's", " ".join(f"{r:.4f}" for r in ratio), flush=True)
                for name, b in base["gradient"].items():
                    a = own["gradient"][name]
                    layer = re.search(r"layers\.(\d+)\.", name)
                    kind = re.sub(r".*layers\.\d+\.", "", name).removesuffix(".weight")
                    aa, ab, bb = sums(a, a), sums(a, b), sums(b, b)
                    for group in (f"kind {kind}", f"layer {layer[1]}" if layer else "outside the layers", "all"):
                        total = groups[variant][group]
                        for i, value in enumerate((aa, ab, bb)):
                            total[i] += value
    for variant in args.variants:
        r, l = ratios[variant], losses[variant]
        print(f"{variant}: {len(r)} steps, norm over bf16's {sum(r) / len(r):.4f} ({min(r):.4f} to {max(r):.4f}), "
              f"loss {sum(l) / len(l):.5f} ({min(l):.5f} to {max(l):.5f})")
        for group, (aa, ab, bb) in sorted(groups[variant].items()):
            print(f"  {group:<40} norm {math.sqrt(aa / bb):.4f}  along bf16's {ab / bb:.4f}  cosine {ab / math.sqrt(aa * bb):.5f}"
                  f"  share of all squares {bb / groups[variant]['all'][2]:.3f}")


if __name__ == "__main__":
    main()
