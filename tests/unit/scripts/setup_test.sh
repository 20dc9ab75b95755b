#!/usr/bin/env bash
# scripts/setup.sh with stand-ins for nvcc, the GPU and package managers: which preset, what it says, and what a machine without dpkg is told.
set -euo pipefail
setup=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
# A PATH without this machine's own nvcc and nvidia-smi.
mkdir bin
for program in bash dirname sed cat env; do ln -s "$(command -v $program)" bin/; done
unset TPTRAIN_TORCH_DIR
if [ -x /usr/local/cuda/bin/nvcc ]; then nvcc_of_machine=yes; else nvcc_of_machine=no; fi

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# expect PRESET TEXT: standard output is PRESET, standard error holds TEXT, or nothing where TEXT is empty.
expect() {
  local preset
  preset=$(PATH="$directory/bin" bash "$setup" --print-preset 2>error.txt)
  [ "$preset" = "$1" ] || fail "preset $preset, not $1"
  if [ -z "$2" ]; then
    [ ! -s error.txt ] || fail "words without need: $(cat error.txt)"
  else
    grep -qF "$2" error.txt || fail "'$2' is not in: $(cat error.txt)"
  fi
}
nvcc_of() {
  printf '#!/usr/bin/env bash\necho "Cuda compilation tools, release %s, V%s.1"\n' "$1" "$1" >bin/nvcc
  chmod +x bin/nvcc
}
export TPTRAIN_GPU_DEVICE="$directory/no-such-device"
if [ "$nvcc_of_machine" = no ]; then
  expect cpu ""
  touch gpu
  TPTRAIN_GPU_DEVICE="$directory/gpu" expect cuda ""
fi
nvcc_of 12.4
expect cpu "bin/nvcc is of CUDA 12.4, and there is no GPU; --cuda brings nvcc 13"
touch gpu
TPTRAIN_GPU_DEVICE="$directory/gpu" expect cuda ""
nvcc_of 14.0
expect cpu "bin/nvcc is of CUDA 14.0"
nvcc_of 13.0
expect cuda ""
mkdir -p torch/lib
TPTRAIN_TORCH_DIR="$directory/torch" expect cpu "has no CUDA"
[ "$(PATH="$directory/bin" bash "$setup" --cpu --print-preset 2>&1)" = cpu ] || fail "--cpu"
# Without dpkg: one line that names what lacks and the package manager that is there, and nothing is installed.
printf '#!/usr/bin/env bash\n[ "$2" != simdjson ] && [ "$2" != oniguruma ]\n' >bin/pkg-config
for program in cmake ninja mpicc mpirun python3 dnf; do printf '#!/usr/bin/env bash\nexit 0\n' >"bin/$program"; done
printf '#!/usr/bin/env bash\n! grep -q CLI/CLI.hpp\n' >bin/g++  # asked whether headers are there
ln -s "$(command -v grep)" bin/
chmod +x bin/*
if PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without oniguruma"; fi
grep -qF "this machine lacks oniguruma simdjson CLI11;" error.txt || fail "what lacks is not in: $(cat error.txt)"
grep -qF "sudo dnf install 'pkgconfig(oniguruma)' 'pkgconfig(simdjson)' 'cmake(CLI11)' (on RHEL" error.txt || fail "no dnf in: $(cat error.txt)"
[ "$(wc -l <error.txt)" -eq 1 ] || fail "more than a line: $(cat error.txt)"
rm bin/ninja
if PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without ninja"; fi
grep -qF "dnf install 'ninja-build' 'pkgconfig(oniguruma)' 'pkgconfig(simdjson)'" error.txt || fail "no ninja in: $(cat error.txt)"
mv bin/dnf bin/zypper
if PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without ninja"; fi
grep -qF "sudo zypper install 'ninja' 'pkgconfig(oniguruma)'" error.txt || fail "no zypper in: $(cat error.txt)"
grep -qF "conda env create --file scripts/environment.yml" error.txt || fail "no way without root in: $(cat error.txt)"
# An MPI that is there but not on the PATH, as Fedora and SUSE install it, is not asked for again; both programs of it are one package.
mkdir -p beside
mv bin/mpicc beside/mpicc
rm bin/mpirun
if MPI_PLACES="$directory/none $directory/beside" PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without mpicc"; fi
grep -qF "mpicc is in $directory/beside, which is not on the PATH" error.txt || fail "no place of mpicc in: $(cat error.txt)"
[ "$(wc -l <error.txt)" -eq 1 ] || fail "more than a line: $(cat error.txt)"
if MPI_PLACES="$directory/none" PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without mpicc"; fi
grep -qF "zypper install 'ninja' 'openmpi4-devel' 'pkgconfig(oniguruma)'" error.txt || fail "no mpi in: $(cat error.txt)"
cp bin/zypper bin/conda
if CONDA_PREFIX=$directory PATH="$directory/bin" bash "$setup" --cpu >out.txt 2>error.txt; then fail "went on without ninja"; fi
grep -qF "conda env update --file scripts/environment.yml" error.txt || fail "no conda in: $(cat error.txt)"
[ -f "$(dirname "$setup")/environment.yml" ] || fail "there is no scripts/environment.yml"
# With dpkg and without root: what an environment of conda brings is as good as a package. Its compiler has a long name and is said by CXX.
printf '#!/usr/bin/env bash\nexit 1\n' >bin/dpkg-query
printf '#!/usr/bin/env bash\necho 1000\n' >bin/id
printf '#!/usr/bin/env bash\ncase "$*" in *version_info*) exit 1 ;; esac\n' >bin/python3  # goes on to LibTorch, and ends there
printf '#!/usr/bin/env bash\nexit 0\n' | tee bin/pkg-config bin/ninja bin/mpicc bin/mpirun bin/long-g++ >/dev/null
ln -s "$(command -v tr)" bin/
rm bin/zypper bin/g++
chmod +x bin/*
mkdir -p torch/include/torch/headeronly
printf '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n' >torch/include/torch/headeronly/version.h
without_root() { CONDA_PREFIX=$directory TPTRAIN_TORCH_DIR="$directory/torch" PATH="$directory/bin" "$@" bash "$setup" --cpu >out.txt 2>error.txt; }
without_root env CXX="$directory/bin/long-g++" || fail "conda's parts are not enough: $(cat error.txt)"
grep -qF "LibTorch of TPTRAIN_TORCH_DIR" out.txt || fail "no LibTorch in: $(cat out.txt)"
if without_root env; then fail "went on without a compiler"; fi
[ "$(wc -l <error.txt)" -eq 1 ] || fail "more than a line: $(cat error.txt)"
grep -qF "lacks g++ CLI11 Catch2; install them, then start again: conda env update --file scripts/environment.yml" error.txt || fail "no g++ in: $(cat error.txt)"
rm bin/conda
if without_root env; then fail "went on without a compiler"; fi
grep -qF "sudo apt-get update && sudo apt-get install -y build-essential cmake" error.txt || fail "no apt-get in: $(cat error.txt)"
grep -qF "conda env create --file scripts/environment.yml" error.txt || fail "no way without root in: $(cat error.txt)"
[ "$(wc -l <error.txt)" -eq 1 ] || fail "more than a line: $(cat error.txt)"
# A folder that is no LibTorch 2.11.
if without_root env CXX="$directory/bin/long-g++" TPTRAIN_TORCH_DIR="$directory/none"; then fail "took a folder that is not there"; fi
grep -qF "TPTRAIN_TORCH_DIR=$directory/none is no LibTorch 2.11" error.txt || fail "no word of LibTorch in: $(cat error.txt)"
sed -i 's/MINOR 11/MINOR 12/' torch/include/torch/headeronly/version.h
if without_root env CXX="$directory/bin/long-g++"; then fail "took LibTorch 2.12"; fi
grep -qF "is no LibTorch 2.11" error.txt || fail "no word of LibTorch 2.12 in: $(cat error.txt)"
echo "all passed"
