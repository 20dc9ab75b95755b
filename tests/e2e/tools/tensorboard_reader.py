#!/usr/bin/env python3
"""Trains a little, twice, and reads run_dir/tensorboard with the real TensorBoard package: the curves are those of
metrics.jsonl, and what a resume takes back is gone. Exit code 77 (skipped) where the package is not installed.
  tensorboard_reader.py TPTRAIN MPIRUN"""
import json, math, os, pathlib, subprocess, sys, tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as missing:
    print(f"skipped: {missing} (scripts/setup.sh --tests)")
    sys.exit(77)

RUN_FILE = """run_dir: run
model: {architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 4}}
data: {train: [train.txt], eval: [train.txt]}
train: {seq_length: 32, global_batch_size: 2, max_steps: 6, device: cpu}
checkpoint: {save_steps: 4, keep: 0}
eval: {every_steps: 2, max_batches: 1}
"""
program, mpirun = sys.argv[1:]
directory = pathlib.Path(tempfile.mkdtemp())
(directory / "run.yaml").write_text(RUN_FILE)
(directory / "train.txt").write_text("".join(f"Sentence {i} is followed by sentence {i + 1}.\n" for i in range(200)))

def train(steps):
    subprocess.run([mpirun, "--oversubscribe", "-n", "2", program, "--config", "run.yaml", "--set", f"train.max_steps={steps}"],
                   cwd=directory, check=True, stdout=subprocess.DEVNULL)

train(6)
# As if it had been killed behind the save of step 4: steps 5 and 6 are done again.
subprocess.run(["rm", "-r", str(directory / "run/checkpoints/step-00000006")], check=True)
train(8)

lines = [json.loads(line) for line in open(directory / "run/metrics.jsonl")]
steps = [line for line in lines if "loss" in line]
evals = [line for line in lines if "eval_loss" in line]
events = EventAccumulator(str(directory / "run/tensorboard"), size_guidance={"scalars": 0}).Reload()
tags = {"train/loss": "loss", "train/grad_norm": "grad_norm", "train/lr": "lr", "train/tokens_seen": "tokens_seen",
        "train/epoch": "epoch", "perf/step_time_s": "step_time_s", "perf/tokens_per_second": "tokens_per_second",
        "perf/tokens_per_second_per_rank": "tokens_per_second_per_rank", "perf/tflops": "tflops",
        "perf/peak_memory_bytes": "peak_memory_bytes"}
eval_tags = {"eval/loss": "eval_loss", "eval/perplexity": "eval_perplexity"}
phase_tags = {f"perf/phase/{name}_s": name for name in ("data", "forward_backward", "communication", "optimizer", "other")}
assert set(events.Tags()["scalars"]) == set(tags) | set(eval_tags) | set(phase_tags), events.Tags()

def check(tag, key, lines):
    points = events.Scalars(tag)
    assert [p.step for p in points] == [line["step"] for line in lines], (tag, [p.step for p in points])
    for point, line in zip(points, lines):
        assert math.isclose(point.value, line[key], rel_tol=1e-6, abs_tol=1e-30), (tag, point, line)
        assert abs(point.wall_time - line["time"]) < 1e-3, (tag, point, line)

for tag, key in tags.items():
    check(tag, key, steps)
for tag, name in phase_tags.items():
    check(tag, name, [{**line, **line["phases"]} for line in steps])
for line in steps:  # each moment of a step counts for one phase
    assert math.isclose(sum(line["phases"].values()), line["step_time_s"], rel_tol=0.02, abs_tol=1e-3), line
for tag, key in eval_tags.items():
    check(tag, key, evals)
# scripts/track.py gives trackers the same numbers by the same names.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "scripts"))
import track
given = {}
for step, _, values in track.Lines(directory / "run/metrics.jsonl").new():
    for tag, value in values.items():
        given.setdefault(tag, []).append((step, value))
assert set(events.Tags()["scalars"]) <= set(given), given.keys()
for tag in events.Tags()["scalars"]:
    seen = [(point.step, point.value) for point in events.Scalars(tag)]
    assert [step for step, _ in seen] == [step for step, _ in given[tag]], tag
    assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30) for (_, a), (_, b) in zip(seen, given[tag])), tag
assert len(steps) == 8 and len(os.listdir(directory / "run/tensorboard")) == 2
print(f"{len(tags) + len(phase_tags) + len(eval_tags)} curves of {len(steps)} steps read by TensorBoard as metrics.jsonl has them")
