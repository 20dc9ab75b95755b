#!/usr/bin/env python3
"""scripts/track.py on a run directory: what a line gives, what is new while a run goes on and after a resume took lines back, and the real
packages of MLflow and Weights & Biases where they are installed (each by itself; without them that part is left out, and said so).
  track_test.py SCRIPT"""
import importlib.util, json, os, pathlib, subprocess, sys, tempfile

script = pathlib.Path(sys.argv[1])
sys.dont_write_bytecode = True
sys.path.insert(0, str(script.parent))
import track

STEP = {"step": 3, "loss": 2.5, "lr": 1e-4, "epoch": 0.5, "sources": {"a b": {"sequences": 7, "epoch": 0.25}}, "time": 1.5, "step_time_s": 0.5,
        "phases": {"data": 0.125, "other": 0.25}, "mfu": 0.5}
SKIPPED = {"step": 4, "skipped": "outlier", "lr": 1e-4, "tokens_seen": 9, "epoch": 0.6, "time": 2}
EVAL = {"step": 4, "eval_loss": 3.5, "eval_perplexity": 33.0, "eval_tokens": 5, "eval_sets": {"wiki": {"loss": 3.25, "tokens": 5}}, "time": 2.5}
SAVE = {"step": 3, "save_stall_s": 0.5, "save_s": 2.0, "save_bytes": 10, "time": 3.5}
NOT_FINITE = {"step": 5, "loss": None, "grad_norm": None, "lr": 1e-4, "time": 4}

assert track.values_of(STEP) == {"train/loss": 2.5, "train/lr": 1e-4, "train/epoch": 0.5, "train/epoch_of_source/a b": 0.25, "perf/step_time_s": 0.5,
                                 "perf/phase/data_s": 0.125, "perf/phase/other_s": 0.25, "perf/mfu": 0.5}
assert track.values_of(SKIPPED) == {}
assert track.values_of(EVAL) == {"eval/loss": 3.5, "eval/perplexity": 33.0, "eval/tokens": 5, "eval/loss/wiki": 3.25}
assert track.values_of(SAVE) == {"perf/save_stall_s": 0.5, "perf/save_s": 2.0, "perf/save_bytes": 10}
assert track.values_of(NOT_FINITE) == {"train/lr": 1e-4}
assert track.flat({"a": {"b": 1, "c": [1, 2]}, "d": "x"}) == {"a.b": 1, "a.c": "[1, 2]", "d": "x"}

directory = pathlib.Path(tempfile.mkdtemp()) / "run"
directory.mkdir()
numbers = directory / "metrics.jsonl"


def write(*lines, more=""):
    numbers.write_text("".join(json.dumps(line) + "\n" for line in lines) + more)


lines = track.Lines(numbers)
write(STEP, more='{"step": 4, "lo')  # a line that is being written is not read
assert [step for step, _, _ in lines.new()] == [3] and lines.new() == []
write(STEP, {**STEP, "step": 4}, EVAL, SAVE)
assert [(step, at) for step, at, _ in lines.new()] == [(4, 1.5), (4, 2.5), (3, 3.5)]
write(STEP)  # resumed at step 3: what is done again is not given twice
assert lines.new() == []
write(STEP, {**STEP, "step": 4}, {**STEP, "step": 5})
assert [step for step, _, _ in lines.new()] == [5]

(directory / "resolved_config.yaml").write_text("optimizer: {learning_rate: 1e-4}\n")
write(STEP, {**STEP, "step": 4}, EVAL, SAVE)
refused = subprocess.run([sys.executable, script, "mlflow", directory / "none"], capture_output=True, text=True)
assert refused.returncode == 1 and "name the run_dir of a run that has begun" in refused.stderr, refused
for package, variables in (("mlflow", {"MLFLOW_TRACKING_URI": f"file:{directory}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "1"}),
                           ("wandb", {"WANDB_MODE": "offline", "WANDB_DIR": str(directory)})):
    installed = importlib.util.find_spec(package) is not None
    ran = subprocess.run([sys.executable, script, package, directory, "--project", "lobster"], env={**os.environ, **variables},
                         capture_output=True, text=True)
    if not installed:
        assert ran.returncode == 1 and "pip install" in ran.stderr, ran
        print(f"left out: the package {package} is not installed")
        continue
    assert ran.returncode == 0 and "4 lines of" in ran.stdout, ran
    if package == "mlflow":
        values = next(directory.glob("mlruns/*/*/metrics/eval/loss.wiki")).read_text().split()
        assert values[1:] == ["3.25", "4"], values
        assert next(directory.glob("mlruns/*/*/params/optimizer.learning_rate")).read_text() in ("1e-4", "0.0001")
    else:
        assert list(directory.glob("wandb/offline-run-*/*.wandb")), list(directory.rglob("*"))
print("ok")
