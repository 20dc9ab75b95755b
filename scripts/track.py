#!/usr/bin/env python3
"""Gives the numbers of a run to MLflow or Weights & Biases, under the names that TensorBoard shows.

    scripts/track.py mlflow runs/a
    scripts/track.py wandb runs/a --project lobster --follow

The Python must have the tracker's package, mlflow (mlflow-skinny is enough) or wandb, which are told where to write by their own
variables (MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE=offline). Reads run_dir/metrics.jsonl and resolved_config.yaml, which become
values and parameters of one run of the tracker; touches nothing in run_dir, and may be used on any host that sees it, during the
training too: with --follow it goes on with what comes, until Ctrl-C. What a resume of the training does again is not given twice.
"""
import argparse
import json
import pathlib
import re
import sys
import time

PERFORMANCE = {"step_time_s", "tokens_per_second", "tokens_per_second_per_rank", "tflops", "mfu", "peak_memory_bytes",
               "save_s", "save_stall_s", "save_bytes"}


def values_of(line):
    """{"train/loss": 2.5, ...}: the numbers of a line of metrics.jsonl, by TensorBoard's names (docs/metrics.md)."""
    values = {}
    for key, value in line.items():
        if key == "phases":
            values.update({f"perf/phase/{name}_s": seconds for name, seconds in value.items()})
        elif key == "sources":
            values.update({f"train/epoch_of_source/{name}": source["epoch"] for name, source in value.items()})
        elif key == "eval_sets":
            values.update({f"eval/loss/{name}": measured["loss"] for name, measured in value.items()})
        elif key.startswith("eval_"):
            values["eval/" + key.removeprefix("eval_")] = value
        elif key not in ("step", "time"):
            values[("perf/" if key in PERFORMANCE else "train/") + key] = value
    numbers = {key: value for key, value in values.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
    if "eval_loss" in line or "skipped" in line or "save_s" in line:  # tokens_seen and epoch are those of the step's own line
        numbers = {key: value for key, value in numbers.items() if key.startswith(("eval/", "perf/save"))}
    return numbers


def flat(settings, prefix=""):
    """{"optimizer.learning_rate": 1e-4, ...}"""
    if not isinstance(settings, dict):
        return {prefix: settings if isinstance(settings, (int, float, str)) else json.dumps(settings)}
    return {key: value for name, below in settings.items() for key, value in flat(below, f"{prefix}.{name}" if prefix else str(name)).items()}


class MLflow:
    def __init__(self, name, project, settings):
        import mlflow
        self.client, self.Metric = mlflow.MlflowClient(), mlflow.entities.Metric
        experiment = self.client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self.client.create_experiment(project)
        self.run = self.client.create_run(number, run_name=name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, str(value)[:6000])

    def log(self, rows):
        # Its store of files has a folder of what has others below it: eval/loss must not be one.
        def named(key):
            return re.sub(r"[^\w\-. :/]", "_", key.replace("eval/loss/", "eval/loss."))
        metrics = [self.Metric(named(key), value, int(1000 * at), step)
                   for step, at, values in rows for key, value in values.items()]
        for begin in range(0, len(metrics), 1000):
            self.client.log_batch(self.run, metrics=metrics[begin:begin + 1000])

    def finish(self):
        self.client.set_terminated(self.run)


class WeightsAndBiases:
    def __init__(self, name, project, settings):
        import wandb
        self.run = wandb.init(project=project, name=name, config=settings)
        # Its own counter cannot go back, and the line of a save may stand behind those of later steps.
        self.run.define_metric("*", step_metric="step")

    def log(self, rows):
        for step, _, values in rows:
            self.run.log({"step": step, **values})

    def finish(self):
        self.run.finish()


class Lines:
    """What is new in metrics.jsonl since the last call; whole lines alone."""

    def __init__(self, path):
        self.path, self.offset, self.given = path, 0, set()

    def new(self):
        if self.path.stat().st_size < self.offset:  # a resume has taken lines back
            self.offset = 0
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            text = file.read()
        text = text[:text.rfind(b"\n") + 1]
        self.offset += len(text)
        rows = []
        for line in map(json.loads, text.splitlines()):
            values = values_of(line)
            key = (line["step"], next(iter(values), None))
            if not values or key in self.given:
                continue
            self.given.add(key)
            rows.append((line["step"], line.get("time", time.time()), values))
        return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=("mlflow", "wandb"))
    parser.add_argument("run_dir", type=pathlib.Path)
    parser.add_argument("--name", help="of the run in the tracker (the name of run_dir)")
    parser.add_argument("--project", default="tptrain", help="W&B's project, MLflow's experiment (tptrain)")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--every", type=float, default=10, help="with --follow: seconds between two looks (10)")
    options = parser.parse_args()
    numbers = options.run_dir / "metrics.jsonl"
    if not numbers.is_file():
        sys.exit(f"track.py: there is no {numbers}: name the run_dir of a run that has begun")
    try:
        import yaml
        settings = flat(yaml.safe_load((options.run_dir / "resolved_config.yaml").read_text()))
        tracker = {"mlflow": MLflow, "wandb": WeightsAndBiases}[options.tracker](
            options.name or options.run_dir.resolve().name, options.project, settings)
    except ImportError as missing:
        sys.exit(f"track.py: {missing}: pip install {'mlflow-skinny' if options.tracker == 'mlflow' else 'wandb'}")
    lines, steps = Lines(numbers), 0
    try:
        while True:
            rows = lines.new()
            tracker.log(rows)
            steps += len(rows)
            if not options.follow:
                break
            time.sleep(options.every)
    except KeyboardInterrupt:
        pass
    tracker.finish()
    print(f"{steps} lines of {numbers} given to {options.tracker}")


if __name__ == "__main__":
    main()
