#!/usr/bin/env python3
"""tptrain fetch against a hub of our own: what it brings, what it refuses, and that no fault of the server or of the way makes it keep a
wrong file.
  fetch.py TPTRAIN [--trials N] [--seed S]     N trials of random faults, some seven each: 150 make 1,000"""
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from hub_server import API_FAULTS, BREAKS, COMMIT, LIES, HubServer, Repository

program = sys.argv[1]
option = lambda name, default: int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default
place = pathlib.Path(tempfile.mkdtemp(prefix="tptrain fetch "))
draw = random.Random(option("--seed", 1))
blob = lambda size: draw.randbytes(size)
FILES = {"config.json": b'{"model_type": "qwen2"}', "model.safetensors": blob(700_001), "tokenizer.json": blob(90_000), "empty.txt": b"",
         "deep/er/a file of 'quotes' & 100%.txt": blob(5_000), ".gitattributes": b"*.safetensors filter=lfs\n"}
LARGE = ("model.safetensors", "tokenizer.json")
OTHER_FORMS = {"pytorch_model.bin": blob(1000), "original/params.json": b"{}", "onnx/model.onnx": blob(10)}


def fetch(server, name, out, *options, token=None, environment=(), code=0, kill_after=None, stalls_after=30):
    """stalls_after: seconds without a byte. Short only where the server stalls: on a busy machine it is slow without a fault."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    variables |= {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(place / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": str(stalls_after), **dict(environment)}
    if token:
        variables["HF_TOKEN"] = token
    process = subprocess.Popen([program, "fetch", name, "--out", str(out), *options], env=variables, cwd=place, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        said = process.communicate(timeout=kill_after or 300)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0]
        assert kill_after, said
        return None, said
    assert code is None or process.returncode == code, (name, options, process.returncode, said)
    return process.returncode, said


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def expect(said, *words):
    for word in words:
        assert word in said, (word, said)


def test_whole():
    files = FILES | OTHER_FORMS
    server = HubServer({"Qwen/Small": Repository(files, LARGE), "own/rows": Repository({"a.jsonl": blob(2000)}, kind="datasets")})
    out = place / "models/Small"
    said = fetch(server, "Qwen/Small", out, token="hf_right")[1]
    wanted = {path: data for path, data in FILES.items() if path != ".gitattributes"}
    assert content(out) == wanted, (content(out).keys(), said)
    expect(said, "Qwen/Small at main (" + COMMIT[:12], "left out: ", "pytorch_model.bin", str(out))
    assert not server.complaints, server.complaints
    asked = len(server.ended())
    expect(fetch(server, "hf://Qwen/Small@main", out)[1], "5 of them were there")
    assert len(server.ended()) == asked, "what is whole is not fetched again"
    fetch(server, "Qwen/Small", place / "all", "--include", "*")
    assert content(place / "all") == files
    fetch(server, f"{server.endpoint}/Qwen/Small", place / "some", "--include", "*.json", "--include", "onnx/")
    assert sorted(content(place / "some")) == ["config.json", "onnx/model.onnx", "original/params.json", "tokenizer.json"]
    fetch(server, "datasets/own/rows", place / "rows", "--revision", "refs/pr/1")
    assert list(content(place / "rows")) == ["a.jsonl"]
    # Without --out the folder is named after the repository.
    variables = dict(os.environ, HF_ENDPOINT=server.endpoint, HF_HOME=str(place / "home"))
    subprocess.run([program, "fetch", "datasets/own/rows"], env=variables, cwd=place, check=True, stdout=subprocess.DEVNULL)
    assert (place / "data/rows/a.jsonl").is_file()
    # What differs is replaced only on request.
    (out / "config.json").write_text("my own")
    expect(fetch(server, "Qwen/Small", out, code=2)[1], "config.json is there, and not as in the repository", "--overwrite")
    assert (out / "config.json").read_text() == "my own"
    fetch(server, "Qwen/Small", out, "--overwrite")
    assert content(out) == wanted
    server.close()


def test_refusals():
    server = HubServer({"gated/model": Repository({"a.json": b"{}"}, gated=True), "own/secret": Repository({"a.json": b"{}"}, private=True),
                        "own/open": Repository({"a.json": b"{}"})})
    out = place / "refused"
    expect(fetch(server, "gated/model", out, code=2)[1], "Access to model gated/model is restricted", "Accept its terms on",
           "/gated/model", "set HF_TOKEN", "No token was sent")
    expect(fetch(server, "gated/model", out, token="hf_wrong", code=2)[1], "The token of HF_TOKEN was sent")
    fetch(server, "gated/model", out, token="hf_right")
    assert content(out) == {"a.json": b"{}"}
    expect(fetch(server, "own/secret", place / "x", code=2)[1], "Repository not found", "See that the name is right", "HF_TOKEN",
           "datasets/own/secret")
    home = place / "home"
    home.mkdir()
    (home / "token").write_text("hf_right\n")
    fetch(server, "own/secret", place / "secret")  # the token that `hf auth login` keeps
    (home / "token").unlink()
    expect(fetch(server, "no/body", place / "x", code=2)[1], "Repository not found")
    expect(fetch(server, "own/open", place / "x", "--revision", "v9", code=2)[1], "Invalid rev id: v9", "There is no revision v9")
    expect(fetch(server, "own/open", place / "x", "--include", "*.bin", code=2)[1], "--include *.bin matches none of 1 files", "a.json")
    expect(fetch(server, "own/open", place / "x", environment={"HF_HUB_OFFLINE": "1"}, code=2)[1], "HF_HUB_OFFLINE is set", "Unset")
    for name in ("../etc", "a/b/c", "/etc/passwd", "own/../open", "a b", "datasets/", "own/open@../x", "x-/y", "x/.git"):
        expect(fetch(server, name, place / "x", code=2)[1], "must be")
    expect(fetch(server, "own/open", place / "x", environment={"HF_ENDPOINT": "ftp://hub"}, code=2)[1], "HF_ENDPOINT is ftp://hub")
    assert not (place / "x").exists(), "a refusal leaves nothing"
    server.close()
    expect(fetch(server, "own/open", place / "x", code=3)[1], "failed 4 times in a row", "the same command again goes on")


def test_hostile():
    """Names that lead out of the folder, listings that are none, links in the way."""
    entry = lambda path, **more: {"type": "file", "path": path, "size": 3, "oid": "0" * 40} | more
    hostile = {
        "../out.txt": "..", "/etc/cron.d/x": "begins at the root", "a/../../x": "..", "a//b": "empty name", "a/./b": "name .",
        ".tptrain-fetch/x": "unfinished files", "a\\..\\b": "backslash", "x\u202etxt": "cannot be shown", "a\nb": "cannot be shown",
        "n" * 300: "too long", "": "is empty"}
    listings = [([entry(path)], words) for path, words in hostile.items()]
    listings += [([entry("a", oid="zz")], "hash of a"), ([entry("a"), entry("a")], "listed twice"), ([entry("a"), entry("a/b")], "a folder"),
                 ([entry("a", size=-1)], "no size"), ([entry("a", size=1 << 60)], "no size"), ([{"type": "file"}], "no text"),
                 ([entry("a", lfs={"oid": "1" * 40, "size": 3})], "64 hex digits"), ({"error": 1}, "no array")]
    for listing, words in listings:
        server = HubServer({"bad/one": Repository({"ok.txt": b"abc"}, listing=listing)}, page_size=9)
        if isinstance(listing, dict):
            Repository.entries, kept = lambda _: Slices(listing), Repository.entries
        out = place / "hostile"
        said = fetch(server, "bad/one", out, code=3)[1]
        if isinstance(listing, dict):
            Repository.entries = kept
        expect(said, words, "This is no answer of a Hugging Face hub")
        assert not out.exists() and not (place / "out.txt").exists(), said
        server.close()
    server = HubServer({"good/one": Repository({"deep/a.txt": b"abc", "b.txt": b"b"})})
    outside = place / "outside"
    outside.mkdir()
    out = place / "links"
    out.mkdir()
    (out / "deep").symlink_to(outside)
    expect(fetch(server, "good/one", out, code=2)[1], "no link is followed")
    (out / "deep").unlink()
    (out / "b.txt").symlink_to(outside / "b.txt")
    expect(fetch(server, "good/one", out, "--overwrite", code=2)[1], "no link is followed")
    (out / "b.txt").unlink()
    (out / ".tptrain-fetch").symlink_to(outside)
    fetch(server, "good/one", out, code=2)
    assert not list(outside.iterdir())
    (out / ".tptrain-fetch").unlink()
    (place / "by link").symlink_to(out)  # the folder itself may be one
    fetch(server, "good/one", place / "by link")
    assert content(out) == {"deep/a.txt": b"abc", "b.txt": b"b"}
    server.close()


class Slices(dict):
    """A JSON object where the server takes a page of a list."""
    def __getitem__(self, key):
        return dict(self) if isinstance(key, slice) else super().__getitem__(key)


def test_each_fault():
    """One fault, one answer: what came before a break is kept, what a lie brought is not."""
    data = blob(400_000)
    for fault in BREAKS + LIES:
        # A break first, so that there is something to go on with.
        server = HubServer({"a/b": Repository({"f.bin": data}, ["f.bin"])}, plan=["close", fault])
        out = place / f"fault {fault}"
        fetch(server, "a/b", out, stalls_after=1 if fault == "stall" else 30)
        assert content(out) == {"f.bin": data}, fault
        assert not (out / ".tptrain-fetch").exists(), fault
        broken, faulted, *rest = server.ended()
        assert (rest or fault in ("slow", "ignores_range")) and faulted[1] == broken[2] > 0, (fault, server.log)  # goes on where the break was
        if fault in ("close", "stall", "slow", "no_chunk_end"):
            assert (rest[0][1] if rest else len(data)) == faulted[1] + faulted[2], (fault, server.log)
        server.close()
    server = HubServer({"a/b": Repository({"f.bin": data}, ["f.bin"])}, fault_share=1.0, faults=("wrong_bytes",), api_faults=())
    said = fetch(server, "a/b", place / "lies", code=3)[1]
    expect(said, "have the hash", "the hub's list says", "This happened 4 times")
    assert all(path.startswith(".tptrain-fetch/") and not kept for path, kept in content(place / "lies").items())
    server.close()


def begin_held(server, out):
    """A fetch whose file has come by half."""
    server.plan = ["held"]
    environment = dict(os.environ, HF_ENDPOINT=server.endpoint, HF_HOME=str(place / "home"))
    process = subprocess.Popen([program, "fetch", "a/b", "--out", str(out)], env=environment, stdout=subprocess.DEVNULL)
    half = len(FILES["model.safetensors"]) // 2
    for _ in range(30000):
        if [part for part in out.glob(".tptrain-fetch/*.part") if part.stat().st_size == half]:
            return process
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_killed():
    """A fetch that was killed: the next one goes on where its bytes end; one beside another is refused."""
    data = FILES["model.safetensors"]
    server = HubServer({"a/b": Repository({"f.bin": data}, ["f.bin"])})
    out = place / "killed"
    process = begin_held(server, out)
    process.kill()
    process.wait()
    server.release.set()
    said = fetch(server, "a/b", out)[1]
    assert len(data) // 2 in [first for _, first, *_ in server.ended()], server.log
    expect(said, "left by an earlier attempt")
    assert content(out) == {"f.bin": data}
    server.release.clear()
    process = begin_held(server, place / "beside")
    expect(fetch(server, "a/b", place / "beside", code=2)[1], "another process fetches into this folder")
    server.release.set()
    assert process.wait(300) == 0
    assert content(place / "beside") == {"f.bin": data}
    server.close()


def test_random_faults(trials):
    """Whatever breaks, how often, and whoever is killed: no wrong file has a name, and in the end all are there."""
    begin, faults, kills, runs, resumed = time.monotonic(), 0, 0, 0, 0
    wanted = {path: data for path, data in FILES.items() if path != ".gitattributes"}
    for trial in range(trials):
        share = draw.choice((0.4, 0.5, 0.6))
        server = HubServer({"a/b": Repository(FILES, LARGE)}, api_faults=API_FAULTS if draw.random() < 0.5 else (), seed=draw.random(),
                           stall_s=1.2)
        out = place / "random"
        for attempt in range(40):
            runs += 1
            kill = draw.uniform(0.3, 1.5) if draw.random() < 0.3 else None
            # A kill is to meet bytes under way.
            server.faults, server.slowness_s, server.fault_share = (("slow",), 0.15, 0.9) if kill else (BREAKS + LIES, 0.02, share)
            unfinished = {path.stat().st_size for path in (out / ".tptrain-fetch").glob("*.part")} if out.exists() else set()
            before = len(server.ended())
            code, said = fetch(server, "a/b", out, code=None, kill_after=kill, stalls_after=1)
            kills += code is None
            firsts = {}
            for path, first, *_ in server.ended()[before:]:
                firsts.setdefault(path, first)
            assert all(first == 0 or first in unfinished for first in firsts.values()), (firsts, unfinished, said)
            resumed += sum(first > 0 for first in firsts.values())
            for path, data in (content(out) if out.exists() else {}).items():
                assert path.startswith(".tptrain-fetch/") or data == wanted[path], (trial, attempt, path, "a wrong file was accepted")
            assert code in (0, 2, 3, None), (code, said)
            if code == 0:
                break
        assert content(out) == wanted, (trial, sorted(content(out)), said)
        assert not server.complaints, server.complaints
        faults += server.faulted
        shutil.rmtree(out)
        server.close()
    print(f"{trials} trials, {runs} starts, {faults} faults of the server, {kills} kills, {resumed} files gone on with after a start: "
          f"no wrong file; {time.monotonic() - begin:.0f} s")
    assert faults >= trials, "too few faults to prove anything"


try:
    for test in (test_whole, test_refusals, test_hostile, test_each_fault, test_killed):
        begin = time.monotonic()
        test()
        print(f"{test.__name__}: ok in {time.monotonic() - begin:.1f} s", flush=True)
    test_random_faults(option("--trials", 5))
finally:
    shutil.rmtree(place, ignore_errors=True)
