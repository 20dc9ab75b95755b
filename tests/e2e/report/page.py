#!/usr/bin/env python3
"""`tptrain report` and `tptrain watch` on run directories: 100,000 lines are a page in less than 2 s of processor time (on a slow machine
in twice the time that Python's reader of JSON takes for them), `watch` into a pipe prints once, and on a terminal it draws again and again until the run is done.
  page.py TPTRAIN"""
import json, os, pathlib, pty, re, resource, select, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from run_directories import HOSTILE, write_run

program = sys.argv[1]
directory = pathlib.Path(tempfile.mkdtemp())
write_run(directory / "long", 100000)
write_run(directory / HOSTILE.replace("/", ""), 200, rate=1e-4)


def tptrain(*arguments, code=0, **more):
    ran = subprocess.run([program, *arguments], cwd=directory, capture_output=True, text=True, **more)
    assert ran.returncode == code, (arguments, ran)
    return ran.stdout + ran.stderr


before = resource.getrusage(resource.RUSAGE_CHILDREN)
said = tptrain("report", "long")
after = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
begin = time.process_time()
for line in open(directory / "long/metrics.jsonl"):
    json.loads(line)
of_python = time.process_time() - begin
print(said, f"processor time: {seconds:.2f} s, of Python's reader of JSON alone: {of_python:.2f} s", sep="")
assert seconds < max(2, 2 * of_python), (seconds, of_python)
assert said.startswith("report.html: 1 run, 100,000 steps, "), said
assert (directory / "report.html").stat().st_size < 2_000_000

assert "2 runs" in tptrain("report", ".", "--out", "both.html")
page = (directory / "both.html").read_text()
assert "<img" not in page and "optimizer.learning_rate" in page
assert "there is no such folder" in tptrain("report", "missing", code=3)
assert "RUN_DIR is missing" in tptrain("report", code=2)

plain = dict(os.environ, LC_ALL="C.UTF-8", TERM="xterm-256color")
once = tptrain("watch", ".", env=plain)
assert "long" in once and "100000/100000" in once and "\x1b" not in once, once

# Live: the numbers of a run that is not done come in while it is watched.
live = directory / "live"
live.mkdir()
(live / "resolved_config.yaml").write_text("train: {max_steps: 3}\n")
(live / "log.txt").write_text("")
leader, follower = pty.openpty()
watching = subprocess.Popen([program, "watch", str(live), "--every", "0.1"], stdout=follower, env=plain)
os.close(follower)
seen = ""


def see(wanted, limit=300):
    global seen
    end = time.monotonic() + limit
    while wanted not in seen:
        assert time.monotonic() < end, (wanted, seen[-2000:])
        if select.select([leader], [], [], 0.5)[0]:
            try:
                seen += os.read(leader, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                assert wanted in seen, (wanted, seen[-2000:])


see("no step yet")
with open(live / "metrics.jsonl", "a") as file:
    file.write('{"step":1,"loss":3.25,"time":%f,"step_time_s":1}\n' % time.time())
see("3.2500")
see("running")
assert re.search(r"\x1b\[\d+A", seen), "it is not drawn over what was there"
with open(live / "log.txt", "a") as file:
    file.write("11-29 19:15:50 done: step 3 of 3\n")
see("done")
assert watching.wait(300) == 0
print("ok")
