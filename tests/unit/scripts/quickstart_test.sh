#!/usr/bin/env bash
# scripts/quickstart.sh with stand-ins for everything that it starts: CPU or GPUs, how many ranks, and what is configured.
set -euo pipefail
script=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
mkdir -p scripts configs lib tests docs third_party apps benchmarks bin
touch README.md configs/quickstart.yaml
cp "$script" scripts/quickstart.sh
said=$place/said.txt

fail() {
  echo "FAILED: $*" >&2
  cat "$said" >&2
  exit 1
}
stand_in() {  # NAME: says how it was called; further lines are what it does
  { echo '#!/usr/bin/env bash'; echo "echo \"$(basename "$1") \$*\" >>'$said'"; cat; } >"$1"
  chmod +x "$1"
}
stand_in scripts/setup.sh <<<'[ "$1" != --print-preset ] || echo cuda'
stand_in bin/cmake <<'EOF'
[[ "$*" == *--target* ]] || { mkdir -p "build/$2"; touch "build/$2/CMakeCache.txt"; }
EOF
stand_in bin/mpirun <<<"echo '{\"step\": 1, \"eval_loss\": 2.5}' >\"\$(sed -n 's/.*run_dir=\\([^ ]*\\).*/\\1/p' <<<\"\$*\")/metrics.jsonl\""
for preset in cpu cuda; do
  mkdir -p "build/$preset/bin"
  stand_in "build/$preset/bin/tptrain" <<<''
done
gpus() {  # N
  stand_in bin/nvidia-smi <<<"for ((i = 0; i < $1; ++i)); do echo \"GPU \$i: NVIDIA H200\"; done"
}
start() {
  rm -f "$said"
  PATH="$place/bin:$PATH" bash scripts/quickstart.sh "$@" >out.txt 2>&1 || { cat out.txt; fail "exit code"; }
}
expect() {
  for words in "$@"; do grep -qF -- "$words" "$said" || fail "'$words' was not started"; done
}

gpus 0
start
expect "setup.sh --cpu" "cmake --preset cpu -DTPTRAIN_UNITY=ON -DTPTRAIN_TESTS=OFF -DTPTRAIN_BENCHMARKS=OFF" " -n 4 $place/build/cpu/bin/tptrain --config" \
  "--set train.device=cpu" "tptrain verify runs/quickstart" "tptrain generate --checkpoint runs/quickstart"
grep -q ARCHITECTURES "$said" && fail "the CPU's build has no architectures"
start  # again: what was configured stays so
grep -q TESTS=OFF "$said" && fail "configured anew"
gpus 8
start
expect "setup.sh --cuda" "cmake --preset cuda -DTPTRAIN_UNITY=ON -DTPTRAIN_TESTS=OFF -DTPTRAIN_BENCHMARKS=OFF -DTPTRAIN_CCACHE=OFF -DCMAKE_CUDA_ARCHITECTURES=native" \
  " -n 4 $place/build/cuda/bin/tptrain" "tptrain generate --checkpoint runs/quickstart-gpu"
grep -q "tp_size" "$said" && fail "four GPUs take the file's layout"
gpus 2
start
expect " -n 2 $place/build/cuda/bin/tptrain" "--set parallel.tp_size=2 --set parallel.dp_size=1"
gpus 1
start
expect " -n 1 $place/build/cuda/bin/tptrain" "--set parallel.tp_size=1"
start --cpu
expect "setup.sh --cpu" " -n 4 $place/build/cpu/bin/tptrain"
if bash scripts/quickstart.sh --gpu >out.txt 2>&1; then fail "--gpu was taken"; fi
echo "all passed"
