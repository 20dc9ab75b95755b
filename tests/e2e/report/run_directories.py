"""Run directories as a training leaves them, made up: what tests of the report and pictures of it are drawn from."""
import json, math, pathlib, random

HOSTILE = """<img src=x onerror="console.error('hostile')"> & 'b'"""


def write_run(directory, steps, rate=3e-4, seed=1, every=1, restart_at=None, name="a"):
    """A run of `steps` steps whose loss falls, with evaluations, saves and, where asked for, a second start."""
    directory = pathlib.Path(directory)
    draw = random.Random(seed)
    begin = 1795979737.0
    now = begin + 9
    lines, log = [], []

    def say(text):
        clock = int(now - begin)
        log.append(f"11-29 {19 + clock // 3600 % 5:02}:{clock // 60 % 60:02}:{clock % 60:02} {text}")

    def start(at):
        say("tptrain 0.1.0 (CPU and CUDA), commit 526d41c3ef9f")
        when = "2026-11-29 19:15:37" if at == 0 else "2026-11-29 19:%02d:%02d" % (15 + (37 + int(now - begin)) // 60, (37 + int(now - begin)) % 60)
        say(f"started {when} UTC by: tptrain --config configs/{name}.yaml")
        say("hosts: node1 (4 ranks)")
        say("device mesh: dp 2 x tp 2, 4 ranks on cuda, host node1")
        say("GPUs: 4 x NVIDIA H200 (139.81 GiB) on 1 host; driver 580.65.06 (CUDA 13.0)")
        say("model: qwen2, 494,032,768 parameters; ZeRO-1")
        if at:
            say(f"resume: runs/{name}/checkpoints/step-{at:08}, step {at}, {at * 4096} tokens seen")

    start(0)
    for step in range(every, steps + 1, every):
        if restart_at and step > restart_at >= step - every:
            say(f"stopped on request (SIGUSR1) at step {restart_at} of {steps}")
            now += 45
            start(restart_at)
            now += 8
        seconds = 0.25 * (1 + 0.1 * draw.random()) if draw.random() > 0.01 else 0.6
        now += seconds * every
        loss = 2.1 + 8.5 * math.exp(-8 * (rate / 3e-4) * step / steps) + 0.06 * draw.gauss(0, 1)
        lines.append({
            "step": step, "loss": loss, "grad_norm": 0.6 + 4 * math.exp(-12 * step / steps) + 0.1 * abs(draw.gauss(0, 1)),
            "lr": rate * min(1, 20 * step / steps) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
            "tokens_seen": step * 16384, "epoch": step / steps * 1.5, "time": now, "step_time_s": seconds,
            "phases": {"data": 0.01, "launch": 0.04, "device": seconds - 0.06, "other": 0.01},
            "sources": {"wiki": {"sequences": 7 * step, "epoch": step / steps}, "chat": {"sequences": 3 * step, "epoch": 3 * step / steps}},
            "tokens_per_second": 16384 / seconds, "tokens_per_second_per_rank": 4096 / seconds,
            "tflops": 380 * 0.25 / seconds, "mfu": 0.384 * 0.25 / seconds, "peak_memory_bytes": 43_000_000_000})
        if step % max(every, steps // 12) == 0:
            now += 2.5
            lines.append({"step": step, "eval_loss": loss + 0.1, "eval_perplexity": math.exp(loss + 0.1),
                          "eval_tokens": 65536, "time": now})
        if step % max(every, steps // 6) == 0:
            now += 0.9
            say(f"checkpoint: runs/{name}/checkpoints/step-{step:08} committed in 0.90 s")
    say(f"done: step {steps} of {steps}")

    for at in (steps // 2, steps):
        checkpoint = directory / f"checkpoints/step-{at:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
        (checkpoint / "shard-00000-of-00001.safetensors").write_bytes(b"\0" * 1000000)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    (directory / "log.txt").write_text("\n".join(log) + "\n")
    settings = (f"run_dir: runs/{name}\nparallel: {{tp_size: 2, dp_size: 2, zero_stage: 1}}\n"
                f"train: {{seq_length: 4096, max_steps: {steps}}}\noptimizer: {{type: adamw, learning_rate: {rate}}}\n")
    (directory / "resolved_config.yaml").write_text(settings)
    (directory / "resolved_config.0.yaml").write_text(settings.replace("zero_stage: 1", "zero_stage: 0"))
    if restart_at:
        (directory / f"resolved_config.{restart_at}.yaml").write_text(settings)
