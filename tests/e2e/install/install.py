#!/usr/bin/env python3
"""Installs the program in one of its ways on a path with spaces, makes the place read-only, and runs it from there as a user without
rights: help, plan, and a training of two ranks under mpirun. The libraries that are loaded are those of that place.
  install.py prefix|wheel|tarball SOURCE_DIR BUILD_DIR MPIRUN TORCH_DIR"""
import os, pathlib, re, shutil, subprocess, sys, tempfile, time

way, source, build, mpirun, torch = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
NOBODY = 65534
def reachable(path):
    """Whether a user without rights may read it: a checkout may lie in a folder of root's own."""
    return subprocess.run(["test", "-r", str(path)], user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0


if os.getuid() != 0:
    NOBODY = os.getuid()  # already without rights
elif not all(map(reachable, (torch / "lib/libtorch_cpu.so", mpirun))):
    print("as root: another user may not read LibTorch here")
    NOBODY = 0
place = pathlib.Path(tempfile.mkdtemp(prefix="tptrain install "))
place.chmod(0o755)
home = place / "home of a user"
home.mkdir()
os.chown(home, NOBODY, -1)
environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")} | {"HOME": str(home)}


def run(*command, code=0, **more):
    ran = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert ran.returncode == code, (command, ran.returncode, ran.stdout[-3000:])
    return ran.stdout


def as_user(*command, **more):
    return run(*command, cwd=home, env=environment | more.pop("env", {}), user=NOBODY, group=NOBODY, extra_groups=[], **more)


def make_read_only(folder):
    for directory, _, files in os.walk(folder):
        for name in [directory, *(os.path.join(directory, file) for file in files)]:
            if not os.path.islink(name):
                os.chmod(name, os.stat(name).st_mode & ~0o222)


def check_files(share, docs):
    for file in (share / "tptrain/configs/quickstart.yaml", share / "tptrain/scripts/sweep.sh", share / "tptrain/scripts/track.py",
                 share / "tptrain/scripts/slurm/train.sbatch",
                 docs / "docs/troubleshooting.md", docs / "README.md"):
        assert file.is_file(), file


def check_shell_files(share):
    completions = share / "bash-completion/completions/tptrain"
    run("bash", "-n", completions)
    for words, offered in (("plan --tp", "--tp-size"), ("veri", "verify"), ("completion ''", "bash zsh"), ("--config run.yaml --se", "--set")):
        count = len(words.split())
        said = run("bash", "-c", f"source '{completions}'; COMP_WORDS=(tptrain {words}); COMP_CWORD={count}; _tptrain; echo ${{COMPREPLY[@]}}")
        assert said.strip() == offered, (words, said)
        if shutil.which("zsh"):  # as its completion system calls it: what is offered, of which zsh itself takes what fits
            said = run("zsh", "-f", "-c", f"compadd() {{ print -r -- $@ }}; words=(tptrain {words}); CURRENT={count + 1}; "
                       f"functions[complete]=\"$(tail -n +2 '{share}/zsh/site-functions/_tptrain')\"; complete")
            assert set(offered.split()) <= set(said.split()), (words, said)
    page = (share / "man/man1/tptrain.1").read_text()
    assert ".SH tptrain plan" in page and "\\-\\-tp\\-size" in page
    if shutil.which("man"):
        rendered = run("man", "--warnings", "-l", share / "man/man1/tptrain.1", env=os.environ | {"MANPAGER": "cat", "MANWIDTH": "100"})
        assert "warning" not in rendered and "--tp-size" in rendered, rendered[:500]


def check_program(command, program, libraries):
    assert "tptrain 0." in as_user(command, "--version")
    loaded = as_user(program.parent / "tptrain-program", "--version", env={"LD_DEBUG": "libs"})
    found = set(map(os.path.normpath, re.findall(r"calling init: (/.*/(?:libtorch_cpu|libc10|libonig|libparquet)\.so\S*)", loaded)))
    assert found, loaded[-2000:]
    for wanted, folder in libraries.items():
        assert any(pathlib.Path(path).is_relative_to(folder) and wanted in path for path in found), (wanted, folder, found)
    (home / "text.txt").write_text("Rain fell on the hills for nine days.\n" * 200)
    (home / "run.yaml").write_text(
        "run_dir: run\nmodel: {architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, "
        "num_hidden_layers: 1, num_attention_heads: 4}}\nparallel: {tp_size: 2}\ndata: {train: [text.txt]}\n"
        "train: {seq_length: 32, global_batch_size: 2, max_steps: 2, device: cpu}\n")
    assert "2 ranks" in as_user(command, "plan", "--config", "run.yaml", "--dp-size", "1")
    said = as_user(mpirun, "--oversubscribe", "-n", "2", command, "--config", "run.yaml")
    assert "done: step 2 of 2" in said, said
    assert "OK " in as_user(command, "verify", "run")


def check_licences(folder, page):
    """Each library that a package brings is named on the page of licences."""
    names = {"onig": "oniguruma", "crypto": "`libcrypto`", "torch_cpu": "`libtorch_cpu`", "c10": "`libc10`", "cudart": "cuda runtime"}
    said = page.read_text().lower()
    brought = {re.match(r"lib(.*?)\.so", path.name)[1] for path in folder.iterdir()}
    assert "torch_cpu" in brought, brought
    assert not [name for name in brought if names.get(name, name) not in said], brought


begin = time.monotonic()
# Of a program with Arrow a package brings Arrow's libraries as well.
parquet = ["libparquet"] if "libparquet" in run("ldd", build / "bin/tptrain-program") else []
if way == "prefix":
    prefix = place / "the prefix"
    run("cmake", "--install", build, "--prefix", prefix)
    moved = place / "moved elsewhere"
    prefix.rename(moved)
    check_files(moved / "share", moved / "share/doc/tptrain")
    check_shell_files(moved / "share")
    make_read_only(moved)
    check_program(moved / "bin/tptrain", moved / "bin/tptrain", {"libtorch_cpu": torch})
    # What docs/installing.md says to remove is all that was installed, and what ran left nothing beside it.
    listed = {pathlib.Path(line).relative_to(prefix) for line in (build / "install_manifest.txt").read_text().splitlines()}
    found = {path.relative_to(moved) for path in moved.rglob("*") if not path.is_dir()}
    assert found == listed, (found ^ listed)
elif way == "tarball":
    run(source / "scripts/package.sh", "--build", build, "--tarball", "--out", place / "dist")
    packed = next((place / "dist").glob("*.tar.gz"))
    print(f"{packed.name}: {packed.stat().st_size / 1e6:.1f} MB, packed in {time.monotonic() - begin:.1f} s")
    run("tar", "-xzf", packed, "-C", place)
    packed.unlink()
    tree = place / packed.name.removesuffix(".tar.gz")
    check_files(tree / "share", tree / "share/doc/tptrain")
    check_licences(tree / "lib/tptrain", source / "docs/licenses.md")
    make_read_only(tree)
    check_program(tree / "bin/tptrain", tree / "bin/tptrain", dict.fromkeys(["libtorch_cpu", "libc10", "libonig", *parquet], tree / "lib/tptrain"))
else:
    made = place / "dist"
    run(source / "scripts/package.sh", "--build", build, "--wheel", "--out", made)
    wheel = next(made.glob("*.whl"))
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    venv = place / "a venv"
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # one that every user may start
    run(python, "-m", "venv", "--without-pip", venv)
    site = next(venv.glob("lib/python3*/site-packages"))
    pip = torch.parent.parent.parent.parent / "bin/python"  # of the environment that LibTorch came from
    if subprocess.run([pip, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        print("skipped: LibTorch is not of a Python environment with pip")
        sys.exit(77)
    before = sorted(str(path) for path in venv.rglob("*"))
    started = time.monotonic()
    run(pip, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet", "--no-index", "--no-deps", wheel)
    print(f"pip install: {time.monotonic() - started:.1f} s")
    for name in ("torch", "nvidia"):  # as if pip had brought them
        (site / name).symlink_to(torch.parent / name)
    check_files(site / "tptrain/share", site / "tptrain/share/doc/tptrain")
    check_shell_files(venv / "share")
    make_read_only(site / "tptrain")
    check_program(venv / "bin/tptrain", site / "tptrain/bin/tptrain", dict.fromkeys(["libtorch_cpu", "libonig", *parquet], site))
    os.chmod(site / "tptrain", 0o755)
    for directory, _, _ in os.walk(site / "tptrain"):
        os.chmod(directory, 0o755)
    for name in ("torch", "nvidia"):
        (site / name).unlink()
    run(pip, "-m", "pip", "--python", venv / "bin/python", "uninstall", "--quiet", "--yes", "tptrain")
    left = sorted(set(str(path) for path in venv.rglob("*")) - set(before))
    assert not [path for path in left if not os.path.isdir(path)] and not (site / "tptrain").exists(), left
print(f"ok in {time.monotonic() - begin:.1f} s")
shutil.rmtree(place, ignore_errors=True)
