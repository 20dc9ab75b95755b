#!/usr/bin/env bash
# Installs what a bare Debian 12 or Ubuntu 24.04 lacks to build tptrain: packages of the distribution, and LibTorch 2.11 from the PyPI wheel in .venv.
# May be run again and again: it does only what is missing.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/setup.sh [--cpu | --cuda] [--parquet] [--tests] [--fuzz] [--print-preset]
  --cpu            the small set: LibTorch without the CUDA libraries (the choice where neither is found)
  --cuda           with the CUDA libraries of the wheel: cuDNN, NCCL, cuBLAS (the choice where nvcc 13 or a GPU is found), and
                   with nvcc 13 of PyPI's wheels (0.3 GB) where this machine has none
  --parquet        also Arrow C++ of the PyPI wheel pyarrow (0.06 GB, 0.17 GB on disk): Parquet and Arrow files can then be read
  --tests          also the Python package tensorboard into .venv (0.15 GB on disk), with which a test reads what the program writes for it
  --fuzz           also clang with libFuzzer and clang-tidy, for scripts/fuzz.sh and tidy.sh (0.3 GB on disk); where they cannot be
                   installed, they are left out
  --print-preset   install nothing; print the CMake preset that fits this machine: cpu or cuda
environment:
  TPTRAIN_TORCH_DIR  folder of a LibTorch 2.11 that is already here (with include/ and lib/); nothing of it is downloaded then
  TPTRAIN_ARROW_DIR  the same for Arrow C++ with Parquet: a folder with include/ and libarrow.so.*, for setup and for cmake
  TPTRAIN_CUDNN_FRONTEND_DIR  for cmake: a folder with cudnn_frontend.h 1.18, where a LibTorch of TPTRAIN_TORCH_DIR has cuDNN and its headers beside it
EOF
}

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
TORCH_VERSION=2.11.0
CUDNN_FRONTEND_VERSION=1.18.0
ARROW_VERSION=26.0.1
# What libtorch_cpu.so of that wheel itself needs to load (CUPTI and the runtime, for its profiler): 0.02 GB beside the wheel's 0.5 GB.
CPU_WHEELS=(nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96)
# The compiler of that CUDA, for machines without a toolkit, or with another one.
NVCC_WHEELS=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85)
PACKAGES=(build-essential cmake ninja-build ccache git pkg-config python3 python3-venv openmpi-bin libopenmpi-dev
  libspdlog-dev libyaml-cpp-dev libcli11-dev nlohmann-json3-dev catch2 libssl-dev
  libonig-dev libutf8proc-dev libsentencepiece-dev libsimdjson-dev zlib1g-dev libzstd-dev curl)

choice=
print_preset=no
parquet=no
tests=no
fuzz=no
for argument in "$@"; do
  case "$argument" in
    --cpu) choice=cpu ;;
    --cuda) choice=cuda ;;
    --parquet) parquet=yes ;;
    --tests) tests=yes ;;
    --fuzz) fuzz=yes ;;
    --print-preset) print_preset=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup.sh: unknown argument '$argument'" >&2; usage >&2; exit 2 ;;
  esac
done

find_nvcc() {
  command -v nvcc || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; } || true
}
has_gpu() { [ -e "${TPTRAIN_GPU_DEVICE:-/dev/nvidiactl}" ] || command -v nvidia-smi >/dev/null; }
# Words go to standard error, since --print-preset is read by scripts.
nvcc=$(find_nvcc)
release_text=$([ -z "$nvcc" ] || "$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
release=${release_text%%.*}
if [ -z "$choice" ]; then
  choice=cpu
  if [ "$release" = 13 ] || has_gpu; then choice=cuda; fi
  if [ "$choice" = cuda ] && [ -n "${TPTRAIN_TORCH_DIR:-}" ] && [ ! -e "$TPTRAIN_TORCH_DIR/lib/libtorch_cuda.so" ]; then
    choice=cpu
    echo "setup: taking the CPU set: the LibTorch of TPTRAIN_TORCH_DIR has no CUDA (no lib/libtorch_cuda.so)" >&2
  elif [ "$choice" = cpu ] && [ -n "$nvcc" ]; then
    echo "setup: taking the CPU set: $nvcc is of CUDA ${release_text:-unknown}, and there is no GPU; --cuda brings nvcc 13" >&2
  fi
fi
if [ "$print_preset" = yes ]; then echo "$choice"; exit 0; fi

# Where this user installs no packages (no dpkg: RHEL, SUSE; or no root) what the build looks for is looked for itself, wherever it came from,
# and what lacks is said in one line with the command.
# dnf and zypper are asked by what a package brings (a program, a pkg-config file, a CMake package), since its name differs between them and their
# releases. Open MPI alone is asked by name: several packages bring an mpicc, none of them on the PATH.
wanted_as() {  # MANAGER PART
  case "$2" in
    g++) echo gcc-c++ ;;
    ninja) [ "$1" = dnf ] && echo ninja-build || echo ninja ;;
    mpicc | mpirun) [ "$1" = dnf ] && echo openmpi-devel || echo openmpi4-devel ;;
    cmake | python3) echo "$2" ;;
    pkg-config) echo /usr/bin/pkg-config ;;
    CLI11 | Catch2) echo "cmake($2)" ;;
    *) echo "pkgconfig($2)" ;;
  esac
}
# Where Fedora, RHEL and SUSE put MPIs; MPI_PLACES: a test's own.
mpi_beside_the_path() {
  local folder
  for folder in ${MPI_PLACES:-/usr/lib64/openmpi/bin /usr/lib64/mpich/bin /usr/lib64/mpi/gcc/*/bin}; do
    if [ -x "$folder/mpicc" ]; then echo "$folder"; return; fi
  done
}
compiler=${CXX:-g++}  # conda's has a long name, which its activation puts there
has_header() {  # HEADER...: any of them
  local header condition=0
  for header in "$@"; do condition+=" || __has_include(<$header>)"; done
  # shellcheck disable=SC2086  # flags are words
  "$compiler" ${CPPFLAGS:-} ${CXXFLAGS:-} -std=c++20 -x c++ -E - >/dev/null 2>&1 <<<"#if !($condition)
#error
#endif"
}
look_for_parts() {  # [COMMAND]: what installs the rest on this machine
  local lacking=() program module command=${1:-} part packages=() mpi else_from=
  command -v "$compiler" >/dev/null || lacking+=(g++)
  for program in cmake ninja mpicc mpirun pkg-config python3; do
    command -v "$program" >/dev/null || lacking+=("$program")
  done
  if [[ " ${lacking[*]} " == *" mpicc "* ]]; then
    mpi=$(mpi_beside_the_path)
    if [ -n "$mpi" ]; then
      echo "setup: mpicc is in $mpi, which is not on the PATH; put it there, then start again: export PATH=$mpi:\$PATH" >&2
      exit 1
    fi
  fi
  for module in yaml-cpp spdlog nlohmann_json libcrypto oniguruma libutf8proc sentencepiece simdjson zlib libzstd; do
    pkg-config --exists "$module" 2>/dev/null || lacking+=("$module")
  done
  has_header CLI/CLI.hpp || lacking+=(CLI11)
  has_header catch2/catch.hpp catch2/catch_all.hpp || lacking+=(Catch2)
  [ "${#lacking[@]}" -gt 0 ] || return 0
  if [ -z "$command" ]; then
    for program in dnf zypper; do
      if [ -z "$command" ] && command -v "$program" >/dev/null; then
        for part in "${lacking[@]}"; do
          part=$(wanted_as "$program" "$part")
          [[ " ${packages[*]} " == *" '$part' "* ]] || packages+=("'$part'")
        done
        command="sudo $program install ${packages[*]}"
        else_from="on RHEL with EPEL and CRB; "
      fi
    done
  fi
  [ -z "$command" ] || command+=" (${else_from}without root, or where one is not to be had: conda env create --file scripts/environment.yml)"
  for program in conda mamba micromamba; do
    if command -v "$program" >/dev/null && [ -n "${CONDA_PREFIX:-}" ]; then command="$program env update --file scripts/environment.yml"; fi
  done
  [ -n "$command" ] || command="an environment of conda-forge, made with: conda env create --file scripts/environment.yml"
  echo "setup: this machine lacks ${lacking[*]}; install them, then start again: $command" >&2
  exit 1
}
missing=()
command -v dpkg-query >/dev/null || { look_for_parts; PACKAGES=(); }
for package in "${PACKAGES[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
as_root=()
if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo)
  else
    look_for_parts "sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    missing=()
  fi
fi
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "$fuzz" = yes ] && ! { command -v clang++ && command -v clang-tidy; } >/dev/null; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
  # The runtime's package has the number of the distribution's clang in its name: 14 on Debian 12, 18 on Ubuntu 24.04.
  install_clang() {
    "${as_root[@]}" apt-get update -qq &&
      version=$(apt-cache depends clang | grep -oE 'clang-[0-9]+' | head -n 1 | grep -oE '[0-9]+') &&
      DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends clang clang-tidy "libclang-rt-$version-dev" >/dev/null
  }
  echo "setup: installing clang with libFuzzer, and clang-tidy"
  install_clang || echo "setup: clang with libFuzzer and clang-tidy could not be installed: what is not here will be left out"
fi

if [ -n "${TPTRAIN_TORCH_DIR:-}" ]; then
  version_of_torch=
  for header in torch/headeronly/version.h torch/csrc/api/include/torch/version.h; do
    header=$TPTRAIN_TORCH_DIR/include/$header
    if [ -z "$version_of_torch" ] && [ -e "$header" ]; then version_of_torch=$(sed -nE 's/^#define TORCH_VERSION_(MAJOR|MINOR) ([0-9]+).*/\2/p' "$header" | tr '\n' .); fi
  done
  if [ "$version_of_torch" != 2.11. ]; then
    echo "setup: TPTRAIN_TORCH_DIR=$TPTRAIN_TORCH_DIR is no LibTorch 2.11 (include/ and lib/ of one are expected there). Correct it, or unset it to use .venv." >&2
    exit 1
  fi
  echo "setup: LibTorch of TPTRAIN_TORCH_DIR=$TPTRAIN_TORCH_DIR, preset $choice"
  [ "$parquet$tests" != nono ] || exit 0
fi

python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "setup: no python3 of version 3.10 or newer with the venv module: it unpacks the wheels of LibTorch and Arrow. Install python3-venv, or set TPTRAIN_TORCH_DIR (and TPTRAIN_ARROW_DIR)." >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')

have() { compgen -G "$site/$1" >/dev/null; }
# --no-compile: libraries and headers are wanted of these wheels; the Python of torch's would take longer than the rest.
pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
fetch_torch() {
  have "torch-$TORCH_VERSION*.dist-info" || { echo "setup: downloading LibTorch $TORCH_VERSION (the PyPI wheel, 0.5 GB)"; pip_install --no-deps "torch==$TORCH_VERSION"; }
  if [ "$choice" = cuda ]; then
    if ! have "nvidia/cudnn/lib" || ! have "nvidia/nccl/lib"; then
      echo "setup: downloading the wheel's CUDA libraries (cuDNN, NCCL, cuBLAS ...: 2.2 GB)"
      pip_install "torch==$TORCH_VERSION"
    fi
    if ! have "nvidia_cudnn_frontend-$CUDNN_FRONTEND_VERSION*.dist-info"; then
      echo "setup: downloading the headers of cuDNN's graph interface (the PyPI wheel nvidia-cudnn-frontend, 2 MB)"
      pip_install --no-deps "nvidia-cudnn-frontend==$CUDNN_FRONTEND_VERSION" ||
        echo "setup: nvidia-cudnn-frontend could not be installed: attention of packed documents will be slower"
    fi
    if [ "$release" != 13 ] && ! have "nvidia/cu13/bin/nvcc"; then
      echo "setup: downloading nvcc 13 (PyPI wheels, 0.3 GB)${nvcc:+: $nvcc is of CUDA ${release_text:-unknown}}"
      pip_install --no-deps "${NVCC_WHEELS[@]}"
    fi
    # What the linker looks for; the wheel has the runtime without that name.
    [ -e "$site/nvidia/cu13/lib/libcudart.so" ] || ln -s libcudart.so.13 "$site/nvidia/cu13/lib/libcudart.so"
  else
    have "nvidia/cu13/lib/libcupti.so.13" && have "nvidia/cu13/lib/libcudart.so.13" || pip_install --no-deps "${CPU_WHEELS[@]}"
  fi
}
[ -n "${TPTRAIN_TORCH_DIR:-}" ] || fetch_torch
if [ "$parquet" = yes ] && [ -z "${TPTRAIN_ARROW_DIR:-}" ] && ! have "pyarrow-$ARROW_VERSION*.dist-info"; then
  echo "setup: downloading Arrow $ARROW_VERSION (the PyPI wheel pyarrow, 0.06 GB)"
  pip_install --no-deps "pyarrow==$ARROW_VERSION"
fi
if [ "$tests" = yes ] && ! have "tensorboard-*.dist-info"; then
  echo "setup: downloading the Python package tensorboard"
  pip_install --no-warn-conflicts tensorboard || echo "setup: tensorboard could not be installed: the test that reads with it will be skipped"
fi
echo "setup: ready, preset $choice"
