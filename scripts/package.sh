#!/usr/bin/env bash
# Makes what can be installed without building: a Python wheel that finds LibTorch in the environment it is installed into, and a tarball
# that brings LibTorch with it, for nodes without a network. Open MPI stays the machine's own: its mpirun and its library belong together.
set -euo pipefail

usage() {
  cat <<'EOT'
usage: scripts/package.sh [--wheel] [--tarball] [--preset cpu|cuda] [--build DIR] [--out DIR]
  --wheel       OUT/tptrain-VERSION-py3-none-PLATFORM.whl: pip install brings torch by dependency, and a command tptrain
  --tarball     OUT/tptrain-VERSION-PRESET-MACHINE.tar.gz: unpack anywhere, run bin/tptrain
  --preset P    what to build (default: what scripts/setup.sh --print-preset says)
  --build DIR   package what this build folder holds, as it is
  --out DIR     where the packages go (default: dist)
Both read Parquet and Arrow files: Arrow's two libraries go with them (0.06 GB).
Without --wheel and --tarball both packages are made.
EOT
}

root=$(cd "$(dirname "$0")/.." && pwd)
wheel=no tarball=no preset='' build='' out=$root/dist
while [ $# -gt 0 ]; do
  case "$1" in
    --wheel) wheel=yes ;;
    --tarball) tarball=yes ;;
    --preset) preset=$2; shift ;;
    --build) build=$2; shift ;;
    --out) out=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "package.sh: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
if [ "$wheel$tarball" = nono ]; then wheel=yes tarball=yes; fi

if [ -z "$build" ]; then
  cd "$root"
  [ -n "$preset" ] || preset=$(scripts/setup.sh --print-preset)
  scripts/setup.sh "--$preset" --parquet
  build=$root/build/package-$preset
  # Code for A100 and its kin, H100, B200 and the RTX 50 series; the last one also in a form that newer cards compile at their first start.
  cmake --preset "$preset" -B "$build" -DTPTRAIN_UNITY=ON -DTPTRAIN_TESTS=OFF -DTPTRAIN_BENCHMARKS=OFF \
    -DCMAKE_CUDA_ARCHITECTURES='80-real;90-real;100-real;120' >/dev/null
  cmake --build "$build" --target tptrain
fi
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
version=$(sed -n 's/^project(tptrain VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")
torch=$(cached TPTRAIN_TORCH_DIR)
[ "$(cached TPTRAIN_CUDA)" = ON ] && preset=cuda || preset=cpu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tptrain-$version-$preset-$(uname -m)
cmake --install "$build" --prefix "$tree" >/dev/null
mkdir -p "$tree/lib/tptrain"

# The libraries that a machine with torch and Open MPI may lack. Those of the C and C++ runtime, of MPI and of the driver are its own.
own='lib(c|m|dl|rt|pthread|util|resolv|gcc_s|stdc\+\+|mpi|open-rte|open-pal|hwloc|udev|cuda|nvidia-ml|xml2|event[a-z_]*|pmix|z)[-.0-9]*\.so|ld-linux|linux-vdso'
ldd "$build/bin/tptrain-program" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | grep -Ev "^($own)" | while read -r name path; do
  case "$path" in
    "$torch"/* | */site-packages/nvidia/* | */cuda*/*) ;;
    *) cp -L "$path" "$tree/lib/tptrain/$name" ;;
  esac
done

if [ "$wheel" = yes ]; then
  mkdir -p "$out"
  python3 "$root/scripts/make_wheel.py" --tree "$tree" --version "$version" --out "$out"
fi

if [ "$tarball" = yes ]; then
  mkdir -p "$out"
  # By a hard link where one can be made: within one file system that is not mounted at two places.
  copy() { cp -L --link "$1" "$2" 2>/dev/null || cp -L "$1" "$2"; }
  for library in libtorch_cpu.so libc10.so libgomp.so.1 libtorch_cuda.so libc10_cuda.so; do
    [ ! -e "$torch/lib/$library" ] || { [ "$preset" = cpu ] && [[ $library == *cuda* ]]; } || copy "$torch/lib/$library" "$tree/lib/tptrain/"
  done
  # CUPTI and the runtime for torch's profiler; with CUDA all of the wheel's libraries, since cuDNN opens its parts by name.
  parts='libcupti.so.* libcudart.so.*'
  [ "$preset" = cpu ] || parts='*.so.*'
  for folder in "$torch"/../nvidia/*/lib; do
    for pattern in $parts; do
      for library in $(compgen -G "$folder/$pattern" || true); do copy "$library" "$tree/lib/tptrain/"; done
    done
  done
  packed=$out/$(basename "$tree").tar.gz
  tar -C "$work" -czf "$packed" "$(basename "$tree")"
  echo "$packed: $(du -h "$packed" | cut -f1)"
fi
